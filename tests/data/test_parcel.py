"""Batches on their way from a worker: through anonymous files, or by value where there are none."""

from __future__ import annotations

import errno
import os
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from engine.data.batch import Batch
from engine.data.parcel import _SENT, Channel, Parcel, empty, pack
from engine.errors import InputError
from engine.structures import ImageBatch, Targets

needs_linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has anonymous files")


def _batch(num_images: int = 2) -> Batch:
    targets = [Targets(torch.rand(3, 4), torch.arange(3), torch.zeros(3, dtype=torch.bool), 7, (4, 5))] * num_images
    return Batch(ImageBatch(torch.rand(num_images, 3, 4, 5), [(4, 5)] * num_images), targets, skipped=["a line"])


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    """This process plays both parts, worker and main process."""
    channel = Channel()
    monkeypatch.setattr("engine.data.parcel._own_channel", channel)
    return channel


def _travelled(parcel: Parcel) -> Batch:
    return ForkingPickler.loads(bytes(ForkingPickler.dumps(parcel))).unpack()


def _assert_same(found: Batch, expected: Batch) -> None:
    assert torch.equal(found.images.tensor, expected.images.tensor)
    assert found.images.tensor.is_contiguous() and found.images.sizes == expected.images.sizes
    assert found.skipped == expected.skipped
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(found.targets, expected.targets, strict=True))


@needs_linux
def test_images_travel_in_a_file(channel: Channel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    batch = _batch()
    parcel = pack(batch)
    assert parcel.content is None and len(ForkingPickler.dumps(parcel)) < 4000
    found = _travelled(parcel)
    _assert_same(found, batch)
    found.images.tensor += 1  # writable, like any tensor
    channel.close()
    del found
    assert len(os.listdir("/proc/self/fd")) == before - 2  # neither the file nor its memory is kept


def _blocks(channel: Channel) -> list[int]:
    return sorted(channel._blocks)


@needs_linux
def test_memory_is_used_again_once_the_images_are_freed(channel: Channel) -> None:
    first, second, third = _batch(), _batch(), _batch()
    held = _travelled(pack(first))
    also_held = _travelled(pack(second))
    assert len(_blocks(channel)) == 2
    view = held.images.tensor[0, 0]
    del held
    _assert_same(_travelled(pack(third)), third)
    assert len(_blocks(channel)) == 3  # the view still shows the first batch
    assert torch.equal(view, first.images.tensor[0, 0])
    del view
    for _ in range(5):
        _assert_same(_travelled(pack(third)), third)
    assert len(_blocks(channel)) == 3
    _assert_same(also_held, second)


@needs_linux
def test_a_batch_that_was_collated_in_a_block_is_not_copied(channel: Channel) -> None:
    images = [torch.rand(3, 4, 5), torch.rand(3, 3, 6)]
    for _ in range(3):
        batch = Batch(ImageBatch.from_list(images, 8, empty=empty), _batch().targets)
        batch.images.tensor[0, 0, 0, 0] = 7
        found = _travelled(pack(batch))
        batch.images.tensor[0, 0, 0, 0] = 8  # the same memory
        assert found.images.tensor[0, 0, 0, 0] == 8 and found.images.tensor.shape == (2, 3, 8, 8)
        assert (found.images.tensor[:, :, 4:] == 0).all() and (found.images.tensor[0, :, :, 5:] == 0).all()
        del found
    assert len(_blocks(channel)) == 1


@needs_linux
def test_larger_batches_take_the_place_of_smaller_ones(channel: Channel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for num_images in (1, 2, 3, 40, 5, 41):
        batch = _batch(num_images)
        _assert_same(_travelled(pack(batch)), batch)
    assert len(_blocks(channel)) == 1
    assert len(os.listdir("/proc/self/fd")) - before == 3  # the worker's descriptor, and one of each map


@needs_linux
def test_a_forked_process_returns_nothing(channel: Channel) -> None:
    batch = _batch()
    found = _travelled(pack(batch))
    pid = os.fork()
    if pid == 0:
        del found
        os._exit(0)
    os.waitpid(pid, 0)
    _travelled(pack(_batch()))
    assert len(_blocks(channel)) == 2
    _assert_same(found, batch)


@needs_linux
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("num_channels", [1, 3, 5])
def test_images_keep_their_type(channel: Channel, dtype: torch.dtype, num_channels: int) -> None:
    """Those of a test with augmentation travel as read."""
    images = (torch.rand(2, num_channels, 4, 5) * 255).to(dtype)
    batch = Batch(ImageBatch(images, [(4, 5)] * 2), _batch().targets)
    found = _travelled(pack(batch))
    assert found.images.tensor.dtype == dtype
    _assert_same(found, batch)


@needs_linux
def test_parcels_that_nobody_opened_are_passed_over(channel: Channel) -> None:
    """As when a training ends its iteration over a loader and starts another one."""
    before = len(os.listdir("/proc/self/fd"))
    batches = [_batch(number) for number in (1, 2, 3)]
    parcels = [pack(batch) for batch in batches]
    _assert_same(_travelled(parcels[2]), batches[2])
    for batch in batches:
        _assert_same(_travelled(pack(batch)), batch)
    assert len(_blocks(channel)) == 3  # all have come back
    assert len(os.listdir("/proc/self/fd")) == before + 9


@needs_linux
def test_the_limit_of_open_files_is_named(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.recv_fds", lambda *_: (_SENT.pack(1, 0, True), [], 8, None))  # what Linux does then
    with pytest.raises(InputError, match="raise ulimit -n"):
        pack(_batch()).unpack()


@needs_linux
def test_images_are_sent_by_value_while_too_many_files_are_on_their_way(channel: Channel) -> None:
    parcels = []
    while not parcels or parcels[-1].message:
        parcels.append(pack(_batch(1)))
        assert len(parcels) < 5000
    for parcel in parcels:
        assert _travelled(parcel).images.tensor.shape == (1, 3, 4, 5)


@needs_linux
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EPERM, errno.EMFILE])
def test_without_memory_or_permission_images_travel_by_value(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(name: str) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    batch = _batch()
    parcel = pack(batch)
    assert parcel.message is None
    _assert_same(_travelled(parcel), batch)


@needs_linux
def test_a_file_that_cannot_grow_is_closed(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/dev/full` refuses each write, as an anonymous file does when memory runs out."""
    monkeypatch.setattr(os, "memfd_create", lambda name: os.open("/dev/full", os.O_WRONLY))
    before = len(os.listdir("/proc/self/fd"))
    batch = _batch()
    _assert_same(pack(batch).unpack(), batch)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_batch_without_readable_images(channel: Channel) -> None:
    batch = Batch(ImageBatch(torch.zeros(0, 3, 0, 0), []), [], unreadable={7: "torn"})
    found = _travelled(pack(batch))
    assert len(found) == 0 and found.images.tensor.shape == (0, 3, 0, 0) and found.unreadable == {7: "torn"}


def test_elsewhere_torch_sends_them() -> None:
    batch = _batch()
    assert torch.is_tensor(pack(batch).content)
    _assert_same(pack(batch).unpack(), batch)
