from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.data import loader, transforms
from engine.data.batch import Batch
from engine.data.dataset import CocoDataset
from engine.data.loader import BatchLoader, TestSamples, TrainSamples
from engine.data.samplers import TestBatchSampler, TrainBatchSampler
from engine.errors import InputError
from engine.structures import Targets

WriteCoco = Callable[..., Path]
MEAN, STD = [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]


def _toy(write_coco: WriteCoco, num_images: int = 5) -> CocoDataset:
    images = [(number + 10, 20, 24 if number % 2 else 16) for number in range(num_images)]
    annotations = [
        {"image_id": number + 10, "category_id": 3, "bbox": [1, 2, 3 + number, 4]} for number in range(1, num_images)
    ]
    folder = write_coco(images, annotations)
    return CocoDataset("toy", folder / "images", folder / "ann.json")


def _train_loader(dataset: CocoDataset, num_workers: int = 0, start: int = 0, iterations: int = 6) -> BatchLoader:
    transform = transforms.train_transform([12, 16, 20], 32, MEAN, STD, vertical_flip=0.5, jitter=(0.2, 0.2, 0.2, 0.1))
    sampler = TrainBatchSampler(len(dataset), 4, iterations, seed=3, start_iteration=start)
    return BatchLoader(dataset, TrainSamples(dataset, transform, 3), sampler, 32, num_workers)


def _test_loader(dataset: CocoDataset, num_workers: int = 0) -> BatchLoader:
    transform = transforms.test_transform(16, 32, MEAN, STD)
    sampler = TestBatchSampler(len(dataset), 2)
    return BatchLoader(dataset, TestSamples(dataset, transform), sampler, 0, num_workers)


def _same(first: Batch, second: Batch) -> bool:
    return (
        torch.equal(first.images.tensor, second.images.tensor)
        and first.images.sizes == second.images.sizes
        and [t.image_id for t in first.targets] == [t.image_id for t in second.targets]
        and all(
            torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels)
            for a, b in zip(first.targets, second.targets, strict=True)
        )
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_workers_gives_the_same_batches(write_coco: WriteCoco) -> None:
    dataset = _toy(write_coco)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    runs = [list(_train_loader(dataset, num_workers)) for num_workers in (0, 1, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    for other in runs[1:]:
        assert len(other) == len(runs[0]) == 6
        assert all(_same(a, b) for a, b in zip(runs[0], other, strict=True))
    resumed = list(_train_loader(dataset, start=4))
    assert all(_same(a, b) for a, b in zip(runs[0][4:], resumed, strict=True))


def test_batches_are_padded_to_the_divisor(write_coco: WriteCoco) -> None:
    batch = next(iter(_train_loader(_toy(write_coco))))
    assert batch.images.tensor.shape[-2:] == (32, 32) and len(batch) == 4
    for image, (height, width), target in zip(batch.images.tensor, batch.images.sizes, batch.targets, strict=True):
        assert target.size == (height, width)
        assert not image[:, height:].any() and not image[:, :, width:].any()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_replaces_unreadable_images(write_coco: WriteCoco, num_workers: int) -> None:
    dataset = _toy(write_coco)
    dataset.image_path(1).write_bytes(dataset.image_path(1).read_bytes()[:-30])
    dataset.image_path(2).unlink()
    batches = list(_train_loader(dataset, num_workers, iterations=5))  # four epochs of five
    ids = [target.image_id for batch in batches for target in batch.targets]
    assert {ids.count(10), ids.count(13), ids.count(14)} == {4, 12}
    skipped = [line for batch in batches for line in batch.skipped]
    assert len(skipped) == 4 + 4 + 4  # image 11 falls on 12, which is unreadable too
    assert sum("1.png" in line and "truncated" in line and "id 11" in line for line in skipped) == 4
    assert sum("2.png" in line and "no such" in line and "id 12" in line for line in skipped) == 8


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_test_images_are_reported_and_left_out(write_coco: WriteCoco, num_workers: int) -> None:
    dataset = _toy(write_coco)
    dataset.image_path(3).write_bytes(b"no image")
    dataset.image_path(4).unlink()
    batches = list(_test_loader(dataset, num_workers))
    assert [[target.image_id for target in batch.targets] for batch in batches] == [[10, 11], [12], []]
    assert [len(batch.images) for batch in batches] == [2, 1, 0] and batches[2].images.tensor.shape[0] == 0
    unreadable = {image_id: reason for batch in batches for image_id, reason in batch.unreadable.items()}
    assert set(unreadable) == {13, 14}
    assert "3.png" in unreadable[13] and "image id 13" in unreadable[13] and "\n" not in unreadable[13]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_reach_the_user_as_one_line(write_coco: WriteCoco, num_workers: int) -> None:
    dataset = _toy(write_coco)
    for index in range(5):
        dataset.image_path(index).unlink(missing_ok=True)
    with pytest.raises(InputError, match="none of 5 images can be read") as caught:
        list(_train_loader(dataset, num_workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_files_are_used_and_counted(
    write_coco: WriteCoco, damaged_jpeg: bytes, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    dataset = _toy(write_coco)
    for index in range(3):
        dataset.image_path(index).write_bytes(damaged_jpeg)
    with caplog.at_level(logging.WARNING, "engine"):
        batches = [batch for _ in range(4) for batch in _test_loader(dataset, num_workers)]
        assert sum(len(batch) for batch in batches) == 20 and sum(len(batch.damaged_files) for batch in batches) == 12
        caplog.clear()
        loader = _test_loader(dataset, num_workers)
        for _ in range(4):
            list(loader)
    lines = [line for line in caplog.messages if "damaged" in line]
    assert len(lines) == 2
    path = dataset.image_path(0)
    assert lines[0].startswith(f"{path}: damaged (Corrupt JPEG data: ")
    assert lines[0].endswith("; the image is used as decoded (1 such images so far)")
    assert lines[1].endswith("(10 such images so far)")


def test_test_batches_keep_order_and_the_end_is_short(write_coco: WriteCoco) -> None:
    loader = _test_loader(_toy(write_coco), num_workers=2)
    for _ in range(2):  # workers persist
        batches = list(loader)
        assert [[t.image_id for t in b.targets] for b in batches] == [[10, 11], [12, 13], [14]]
    assert len(loader) == 3
    assert [len(target) for target in batches[0].targets] == [0, 1]


def test_a_rank_without_images_yields_nothing(write_coco: WriteCoco) -> None:
    dataset = _toy(write_coco)
    samples = TestSamples(dataset, transforms.test_transform(16, 32, MEAN, STD))
    loader = BatchLoader(dataset, samples, TestBatchSampler(5, 2, rank=0, world_size=9), 0, 2)
    assert len(loader) == 0 and list(loader) == []


def test_batches_travel_between_processes_unchanged(write_coco: WriteCoco) -> None:
    batch = next(iter(_train_loader(_toy(write_coco))))
    assert _same(pickle.loads(pickle.dumps(batch)), batch)
    assert isinstance(batch.targets[0].boxes, torch.Tensor)
    moved = batch.to("cpu")
    assert _same(moved, batch)


# ---------------------------------------------------------------- waiting for workers


class _Slow(CocoDataset):
    """Each image takes `seconds` to read; without them, a worker never finishes."""

    seconds: float | None = None

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        if self.seconds is None:
            threading.Event().wait()
        time.sleep(self.seconds)
        return super().read(index)


def _slow_loader(write_coco: WriteCoco, seconds: float | None, timeout: float = 0.5, **options: Any) -> BatchLoader:
    dataset = _toy(write_coco)
    dataset.__class__, dataset.seconds = _Slow, seconds
    samples = TestSamples(dataset, transforms.test_transform(16, 32, MEAN, STD))
    return BatchLoader(dataset, samples, TestBatchSampler(len(dataset), 5), timeout=timeout, num_workers=1, **options)


needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="workers note their progress in shared memory")


@needs_fork
def test_waiting_for_workers_without_progress_ends(write_coco: WriteCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SECONDS_PER_LOOK", 0.1)
    batches = _slow_loader(write_coco, None)
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        next(iter(batches))
    path = batches.dataset.image_path(0)
    assert str(caught.value) == (
        f"no loader worker has made progress for 0.5 s; they were last reading {path} (data set toy, image id 10): "
        "check that drive, or raise DATALOADER.TIMEOUT if it is only slow"
    )
    assert 0.5 <= time.monotonic() - began < 5
    assert not multiprocessing.active_children()


@needs_fork
def test_a_stopped_worker_is_noticed_and_ended(write_coco: WriteCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SECONDS_PER_LOOK", 0.1)
    dataset = _toy(write_coco)
    samples = TestSamples(dataset, transforms.test_transform(16, 32, MEAN, STD))
    batches = iter(BatchLoader(dataset, samples, TestBatchSampler(len(dataset), 1), num_workers=1, timeout=0.5))
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(InputError, match="has made progress for 0.5 s"):
        list(batches)
    assert not multiprocessing.active_children()


@needs_fork
def test_slow_workers_may_take_any_time(write_coco: WriteCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes 1.5 seconds, each of its images 0.3: the timeout of 0.5 is for each of them."""
    monkeypatch.setattr(loader, "SECONDS_PER_LOOK", 0.1)
    (batch,) = _slow_loader(write_coco, 0.3)
    assert len(batch) == 5


@needs_fork
def test_the_time_of_a_training_step_is_no_waiting(write_coco: WriteCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SECONDS_PER_LOOK", 0.1)
    dataset = _toy(write_coco)
    samples = TestSamples(dataset, transforms.test_transform(16, 32, MEAN, STD))
    count = 0
    for _ in BatchLoader(dataset, samples, TestBatchSampler(len(dataset), 1), num_workers=1, timeout=0.3):
        time.sleep(0.6)
        count += 1
    assert count == 5


@needs_fork
def test_without_room_for_semaphores_the_main_process_loads(
    write_coco: WriteCoco, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.Lock", refuse)
    monkeypatch.setattr(logging.getLogger("engine"), "propagate", True)
    dataset = _toy(write_coco)
    for _ in range(2):
        batches = _test_loader(dataset, num_workers=2)
        assert [len(batch) for batch in batches] == [2, 2, 1] == [len(batch) for batch in batches]
    (line,) = caplog.messages
    assert line.startswith("loader workers cannot be started (No space left on device)") and "--shm-size" in line
