"""Batches of images and targets, loaded in worker processes or in this one.

Shapes: N images, H W.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.data.dataset import LabelledImages
from engine.data.image_file import collected_damage
from engine.data.transforms import random_state
from engine.data.workers import naming_dead_workers, worker_arguments
from engine.errors import InputError, shown
from engine.log import get_logger
from engine.structures import ImageBatch, Targets

logger = get_logger(__name__)

Transform = Callable[[np.ndarray, Targets], tuple[Tensor, Targets]]


@dataclass
class Sample:
    """One image, ready for the model.

    Attributes:
        image: (3, H, W) float32.
        targets: in pixels of `image`.
        skipped: the reason why each image before it, which it replaces, cannot be read.
        resized_file: a message if the image file does not have the stated size.
        damaged_file: a message if the image file is damaged.
    """

    image: Tensor
    targets: Targets
    skipped: list[str] = field(default_factory=list)
    resized_file: str | None = None
    damaged_file: str | None = None


@dataclass
class Unreadable:
    """Takes the place of a test image that cannot be read."""

    image_id: int | str
    reason: str


@dataclass
class Batch:
    """N images and their targets.

    Attributes:
        images: (N, 3, H, W) and the unpadded sizes.
        skipped: one line for each unreadable training image that another one replaced, with file and image id.
        unreadable: image id -> reason, for the test images of this batch that cannot be read.
        resized_files: one line for each image whose size is not the one stated in the annotation file.
        damaged_files: one line for each image file that can be decoded although it is damaged.
    """

    images: ImageBatch
    targets: list[Targets]
    skipped: list[str] = field(default_factory=list)
    unreadable: dict[int | str, str] = field(default_factory=dict)
    resized_files: list[str] = field(default_factory=list)
    damaged_files: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, images=self.images.to(device), targets=[target.to(device) for target in self.targets])

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader; the target tensors are too small to be worth pinning."""
        return replace(self, images=replace(self.images, tensor=self.images.tensor.pin_memory()))

    # Each tensor that is sent to another process takes a file descriptor, and there are only so many. The small tensors
    # are sent by value, as arrays.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "targets": [target.map_rows(Tensor.numpy) for target in self.targets]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        targets = [target.map_rows(torch.from_numpy) for target in state["targets"]]
        self.__dict__.update(state, targets=targets)


def collate(samples: Sequence[Sample | Unreadable | InputError], size_divisibility: int = 0) -> Batch | InputError:
    """A zero-padded batch of those samples that can be read, perhaps none, or the first error among them.

    Errors are returned: an exception in a worker would reach the user with the worker's traceback.
    """
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images = [sample for sample in samples if isinstance(sample, Sample)]
    tensors = [sample.image for sample in images]
    return Batch(
        images=ImageBatch.from_list(tensors, size_divisibility) if images else ImageBatch(torch.zeros(0, 3, 0, 0), []),
        targets=[sample.targets for sample in images],
        skipped=[line for sample in images for line in sample.skipped],
        unreadable={sample.image_id: sample.reason for sample in samples if isinstance(sample, Unreadable)},
        resized_files=[sample.resized_file for sample in images if sample.resized_file],
        damaged_files=[sample.damaged_file for sample in images if sample.damaged_file],
    )


@dataclass
class TrainSamples(Dataset):
    """Samples by key (position in the stream, image index); random choices are a function of (seed, position).

    An image that cannot be read is replaced by the next one that can.
    """

    dataset: LabelledImages
    transform: Transform
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> Sample | InputError:
        position, index = key
        skipped: list[str] = []
        for step in range(len(self.dataset)):
            candidate = (index + step) % len(self.dataset)
            try:
                with random_state(self.seed, position):
                    return replace(_load(self.dataset, candidate, self.transform), skipped=skipped)
            except InputError as error:
                skipped.append(str(error))
        return InputError(f"none of {len(skipped)} images can be read; the first: {skipped[0]}")


@dataclass
class TestSamples(Dataset):
    """Samples by image index; an unreadable image is reported, not replaced, since metrics must not hide it."""

    __test__ = False  # not a test class

    dataset: LabelledImages
    transform: Transform

    def __getitem__(self, index: int) -> Sample | Unreadable:
        try:
            return _load(self.dataset, index, self.transform)
        except InputError as error:
            return Unreadable(self.dataset.image_id(index), str(error))


def _load(dataset: LabelledImages, index: int, transform: Transform) -> Sample:
    with collected_damage() as damage:
        image, targets = dataset.read(index)
    height, width = dataset.sizes[index].tolist()
    resized_file = None
    if height and (height, width) != image.shape[:2]:
        resized_file = (
            f"image {shown(targets.image_id)} of {shown(dataset.name)} is {image.shape[1]} x {image.shape[0]}, "
            f"but its annotation file says {width} x {height}"
        )
    tensor, targets = transform(image, targets)
    return Sample(tensor, targets, resized_file=resized_file, damaged_file="; ".join(damage) or None)


class BatchLoader:
    """An iterable of `Batch` over a torch DataLoader.

    Errors in workers are raised here as `InputError` with their one-line message. Of the images whose size differs from
    the stated one, and of the damaged ones that can be decoded, the 1st, 10th, 100th, ... is named in a warning.

    Args:
        dataset: the data set that `samples` reads.
        samples: key -> `Sample`, `Unreadable` or `InputError`.
        batch_sampler: yields one list of keys per batch.
        size_divisibility: the padded height and width are multiples of it; with 0 they are those of the largest image.
        num_workers: processes that load; 0 loads in this one.
        pin_memory: put images in page-locked memory, for faster copies to a GPU.

    Raises:
        InputError: during iteration: no image can be read, or a worker died.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        samples: Dataset,
        batch_sampler: Iterable[list[Any]],
        size_divisibility: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        num_workers = min(num_workers, len(batch_sampler))
        self._open = partial(
            DataLoader,
            samples,
            batch_sampler=batch_sampler,
            collate_fn=partial(collate, size_divisibility=size_divisibility),
            **(worker_arguments(num_workers) if num_workers else {}),
            pin_memory=pin_memory,
            generator=torch.Generator(),  # otherwise each epoch would advance torch's default generator
        )
        self._loader: DataLoader | None = None
        self._num_resized_files, self._num_damaged_files = 0, 0

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = self._open()
        try:
            with naming_dead_workers():
                try:
                    for batch in self._loader:
                        if isinstance(batch, InputError):
                            raise InputError(str(batch))
                        self._report_files(batch)
                        yield batch
                except (ConnectionError, EOFError, FileNotFoundError):
                    # A worker may have died while sending a tensor; in a moment torch raises the error that names it.
                    time.sleep(1)
                    raise
        except InputError:
            # Release the workers now. If the traceback kept them alive until a garbage collection, their pipes would be
            # closed before they are told to stop, and joining each would take 5 seconds.
            self._loader = None
            raise

    def _report_files(self, batch: Batch) -> None:
        advice = "the size of the file is used"
        self._num_resized_files = _report(batch.resized_files, advice, self._num_resized_files)
        advice = "the image is used as decoded"
        self._num_damaged_files = _report(batch.damaged_files, advice, self._num_damaged_files)


def _report(lines: Sequence[str], advice: str, count: int) -> int:
    """Warn of the 1st, 10th, 100th, ... line; `count` came before these. Returns the new count."""
    for number, line in enumerate(lines, count + 1):
        if str(number).strip("0") == "1":
            logger.warning("%s; %s (%d such images so far)", line, advice, number)
    return count + len(lines)
