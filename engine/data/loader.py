"""Batches of images and targets, loaded in worker processes or in this one.

Shapes: N images, H W.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.data.batch import Batch
from engine.data.dataset import LabelledImages
from engine.data.image_file import collected_damage
from engine.data.parcel import Channel, Parcel, empty, pack
from engine.data.transforms import Normalize, Scene, random_state
from engine.data.workers import (
    CAN_FORK,
    Progress,
    end_workers_at_exit,
    naming_dead_workers,
    reading,
    worker_arguments,
    workers_starting,
)
from engine.errors import InputError
from engine.log import get_logger, warn_once
from engine.structures import ImageBatch, Targets

logger = get_logger(__name__)

SECONDS_PER_LOOK = 5.0
"""How often a wait for a batch looks at the progress of the workers."""

Transform = Callable[[np.ndarray, Targets], tuple[Tensor, Targets]]
TrainTransform = Callable[[np.ndarray, Targets, Scene], tuple[Tensor, Targets]]


@dataclass
class Sample:
    """One image, ready for the model.

    Attributes:
        image: (C, H, W), float32, or as it is before it is normalised.
        targets: in pixels of `image`.
        skipped: the reason why each image before it, which it replaces, cannot be read.
        damaged_file: a message if the image file is damaged.
    """

    image: Tensor
    targets: Targets
    skipped: list[str] = field(default_factory=list)
    damaged_file: str | None = None


@dataclass
class Unreadable:
    """Takes the place of a test image that cannot be read."""

    image_id: int | str
    reason: str


def collate(
    size_divisibility: int, normalize: Normalize | None, samples: Sequence[Sample | Unreadable | InputError]
) -> Batch | InputError:
    """A zero-padded batch of those samples that can be read, perhaps none, or the first error among them.

    Images are normalised where they stand in the batch: a copy of so many floats takes as long as all other steps.
    Errors are returned: an exception in a worker would reach the user with the worker's traceback.
    """
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images = [sample for sample in samples if isinstance(sample, Sample)]
    tensors, write = [sample.image for sample in images], normalize.write if normalize else None
    return Batch(
        images=ImageBatch.from_list(tensors, size_divisibility, write, empty)
        if images
        else ImageBatch(torch.zeros(0, 3, 0, 0), []),
        targets=[sample.targets for sample in images],
        skipped=[line for sample in images for line in sample.skipped],
        unreadable={sample.image_id: sample.reason for sample in samples if isinstance(sample, Unreadable)},
        damaged_files=[sample.damaged_file for sample in images if sample.damaged_file],
    )


@dataclass
class TrainSamples(Dataset):
    """Samples by key (position in the stream, image index); random choices are a function of (seed, position).

    An image that cannot be read is replaced by the next one that can.

    Attributes:
        batch_size: images of a global batch, for what is drawn once per batch.
    """

    dataset: LabelledImages
    transform: TrainTransform
    seed: int
    batch_size: int = 1

    def __getitem__(self, key: tuple[int, int]) -> Sample | InputError:
        position, index = key
        skipped: list[str] = []
        for step in range(len(self.dataset)):
            candidate = (index + step) % len(self.dataset)
            damage: list[str] = []
            try:
                image, targets = _read(self.dataset, candidate, damage)
            except InputError as error:
                skipped += [line for line in [str(error)] if line not in skipped]  # tiles of one image say the same
                continue
            read = partial(_read, self.dataset, damage=damage)
            scene = Scene(self.dataset, read, candidate, self.seed, position // self.batch_size, skipped)
            try:
                with random_state(self.seed, position):
                    tensor, targets = self.transform(image, targets, scene)
            except InputError as error:
                return error
            return Sample(tensor, targets, skipped, "; ".join(damage) or None)
        return InputError(f"none of {len(skipped)} images can be read; the first: {skipped[0]}")


@dataclass
class TestSamples(Dataset):
    """Samples by image index; an unreadable image is reported, not replaced, since metrics must not hide it."""

    __test__ = False  # not a test class

    dataset: LabelledImages
    transform: Transform

    def __getitem__(self, index: int) -> Sample | Unreadable:
        try:
            damage: list[str] = []
            tensor, targets = self.transform(*_read(self.dataset, index, damage))
            return Sample(tensor, targets, damaged_file="; ".join(damage) or None)
        except InputError as error:
            return Unreadable(self.dataset.image_id(index), str(error))


def _read(dataset: LabelledImages, index: int, damage: list[str]) -> tuple[np.ndarray, Targets]:
    """An image of the data set; what is said of damage to its file is added to `damage`."""
    with reading(index), collected_damage() as lines:
        image, targets = dataset.read(index)
    damage += lines
    return image, targets


class BatchLoader:
    """An iterable of `Batch` over a torch DataLoader.

    Errors in workers are raised here as `InputError` with their one-line message. Of the damaged images that can be
    decoded, the 1st, 10th, 100th, ... is named in a warning. If `/dev/shm` has no room even for the semaphores of
    workers, this process loads the images, with a warning.

    Args:
        dataset: the data set that `samples` reads.
        samples: key -> `Sample`, `Unreadable` or `InputError`.
        batch_sampler: yields one list of keys per batch.
        size_divisibility: the padded height and width are multiples of it; with 0 they are those of the largest image.
        num_workers: processes that load; 0 loads in this one.
        pin_memory: put images in page-locked memory, for faster copies to a GPU.
        timeout: seconds without progress of any worker after which waiting for them ends; 0 waits for ever, as do
            systems that cannot fork.
        normalize: the last step of the transform, if `samples` leave it to the batch.

    Raises:
        InputError: during iteration: no image can be read, a worker died, or `timeout`.
    """

    _loader: DataLoader | None = None
    _progress: Progress | None = None
    _channels: Sequence[Channel] = ()

    def __init__(
        self,
        dataset: LabelledImages,
        samples: Dataset,
        batch_sampler: Iterable[list[Any]],
        size_divisibility: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0,
        normalize: Normalize | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self._samples, self._size_divisibility, self._pin_memory = samples, size_divisibility, pin_memory
        self._num_workers = min(num_workers, len(batch_sampler))
        self._timeout, self._normalize = timeout, normalize
        self._num_damaged_files = 0

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        """End the workers now; the next iteration starts new ones."""
        if self._progress:
            self._progress.end_workers()
        self._loader = self._progress = None
        for channel in self._channels:
            channel.close()
        self._channels = ()

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        try:
            with naming_dead_workers():
                try:
                    for batch in self._batches():
                        if isinstance(batch, InputError):
                            raise InputError(str(batch))
                        self._report_damaged_files(batch)
                        yield batch
                except (ConnectionError, EOFError, FileNotFoundError):
                    # A worker may have died while sending a batch; in a moment torch raises the error that names it.
                    time.sleep(1)
                    raise
        except InputError:
            # Release the workers now. If the traceback kept them alive until a garbage collection, their pipes would be
            # closed before they are told to stop, and joining each would take 5 seconds.
            self._release()
            raise

    def _batches(self) -> Iterator[Batch | InputError]:
        """What the workers load; ends the wait for them if none makes progress."""
        batches = self._start()
        waiting_since = time.monotonic()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if not _is_timeout(error):
                    raise
                # So far only the time of one look has passed; the workers may be slow.
                if self._progress.seconds_without(since=waiting_since) >= self._timeout:
                    raise self._stuck() from None
                continue
            yield batch.unpack() if isinstance(batch, Parcel) else batch
            waiting_since = time.monotonic()

    def _start(self) -> Iterator[Parcel | Batch | InputError]:
        """Start an epoch, and the workers if they do not run yet."""
        if self._loader is not None:
            try:
                return iter(self._loader)
            except RuntimeError as error:
                if not _is_timeout(error):
                    raise
                self._release()  # workers that were slow to answer are replaced
        if self._num_workers:
            try:
                with workers_starting(self._num_workers):
                    self._loader = self._open()
                    batches = iter(self._loader)
                end_workers_at_exit(os.getpid())
                return batches
            except OSError as error:
                self._release()  # those that have started
                _warn_of_no_workers(error)
                self._num_workers = 0
        self._loader = self._open()
        return iter(self._loader)

    def _open(self) -> DataLoader:
        arguments: dict[str, Any] = {}
        if self._num_workers:
            if CAN_FORK:
                self._progress = Progress(self._num_workers)
                self._channels = [Channel() for _ in range(self._num_workers)]
            arguments = worker_arguments(self._num_workers, self._progress, self._channels)
            if self._progress and self._timeout:
                arguments["timeout"] = min(self._timeout, SECONDS_PER_LOOK)
        return DataLoader(
            self._samples,
            batch_sampler=self.batch_sampler,
            collate_fn=partial(
                _collate_and_pack if self._num_workers else collate, self._size_divisibility, self._normalize
            ),
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # otherwise each epoch would advance torch's default generator
            **arguments,
        )

    def _stuck(self) -> InputError:
        """The error about workers without progress, which are ended first: nothing else may end a hanging read."""
        at_work = [_described(self.dataset, index) for index in self._progress.reading()]
        self._progress.kill_workers()
        what = f"they were last reading {'; '.join(at_work[:3])}: check that drive" if at_work else "none was reading"
        return InputError(
            f"no loader worker has made progress for {self._timeout:g} s; {what}, or raise DATALOADER.TIMEOUT if it is "
            "only slow"
        )

    def _report_damaged_files(self, batch: Batch) -> None:
        for line in batch.damaged_files:
            self._num_damaged_files += 1
            count = str(self._num_damaged_files)
            if count.strip("0") == "1":
                logger.warning("%s (%s such images so far)", line, count)


def _collate_and_pack(
    size_divisibility: int, normalize: Normalize | None, samples: Sequence[Sample | Unreadable | InputError]
) -> Parcel | InputError:
    """`collate` in a worker. Packing belongs here: torch only prints the errors of the thread that sends."""
    batch = collate(size_divisibility, normalize, samples)
    return batch if isinstance(batch, InputError) else pack(batch)


def _warn_of_no_workers(error: OSError) -> None:
    is_full = error.errno in (errno.ENOSPC, errno.ENOMEM)
    hint = "; /dev/shm has no room for their semaphores: give the container more, for example --shm-size=1g"
    warn_once(
        f"loader workers cannot be started ({error.strerror or error}): images are read in the main process, which is "
        f"slower{hint if is_full else ''}"
    )


def _described(dataset: LabelledImages, index: int) -> str:
    path = dataset.image_path(index)
    what = f"data set {dataset.name}, image id {dataset.image_id(index)}"
    return f"{path} ({what})" if path else what


def _is_timeout(error: RuntimeError) -> bool:
    """Torch has no class of its own for it; afterwards its iterator can go on."""
    return str(error).startswith("DataLoader timed out")
