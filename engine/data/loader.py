"""Batches, made in worker processes or here."""

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
from engine.data.transforms import random_state
from engine.data.workers import naming_dead_workers, worker_arguments
from engine.errors import InputError
from engine.log import get_logger
from engine.structures import ImageBatch, Targets

logger = get_logger(__name__)

Transform = Callable[[np.ndarray, Targets], tuple[Tensor, Targets]]


@dataclass
class Sample:
    """One image, ready for the model, and what was met on the way to it."""

    image: Tensor
    targets: Targets
    skipped: list[str] = field(default_factory=list)
    resized_file: str | None = None


@dataclass
class Unreadable:
    """What stands in for a test image that cannot be read."""

    image_id: int | str
    reason: str


@dataclass
class Batch:
    """N images and their targets.

    Attributes:
        images: (N, 3, H, W) and the unpadded sizes.
        targets: one an image.
        skipped: a line for each unreadable image that another one replaced; names file and image
            id.
        unreadable: test images that should be here and cannot be read: image id -> why.
        resized_files: a line for each image whose size is not the one that the annotation file
            states.
    """

    images: ImageBatch
    targets: list[Targets]
    skipped: list[str] = field(default_factory=list)
    unreadable: dict[int | str, str] = field(default_factory=dict)
    resized_files: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            images=self.images.to(device),
            targets=[target.to(device) for target in self.targets],
        )

    def pin_memory(self) -> Batch:
        """Called by the DataLoader; the small target tensors are not worth pinning."""
        return replace(self, images=replace(self.images, tensor=self.images.tensor.pin_memory()))

    # Between processes each tensor costs a file descriptor; the small ones travel by value, as
    # arrays.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "targets": [_map_tensors(t, Tensor.numpy) for t in self.targets]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        targets = [_map_tensors(target, torch.from_numpy) for target in state["targets"]]
        self.__dict__.update(state, targets=targets)


def _map_tensors(targets: Targets, function: Callable[[Any], Any]) -> Targets:
    return replace(
        targets,
        boxes=function(targets.boxes),
        labels=function(targets.labels),
        ignore=function(targets.ignore),
    )


def collate(samples: Sequence[Sample | Unreadable | InputError], size_divisibility: int = 0) -> Batch | InputError:
    """Samples to a zero-padded batch, empty if none can be read; the first error among them takes its place."""
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
    )


class TrainSamples(Dataset):
    """Keys (position, index) to samples; what is random in one is a function of (seed, position).

    An image that cannot be read is replaced by the next one that can.
    """

    def __init__(self, dataset: LabelledImages, transform: Transform, seed: int) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Sample | InputError:
        position, index = key
        skipped: list[str] = []
        for step in range(len(self.dataset)):
            candidate = (index + step) % len(self.dataset)
            try:
                with random_state(self.seed, position):
                    sample = _load(self.dataset, candidate, self.transform)
            except InputError as error:
                skipped.append(str(error))
                continue
            return replace(sample, skipped=skipped)
        return InputError(f"none of {len(skipped)} images can be read; the first: {skipped[0]}")


class TestSamples(Dataset):
    """Indices to samples; an unreadable image is said to be one, for whoever evaluates must know."""

    __test__ = False  # not a test class

    def __init__(self, dataset: LabelledImages, transform: Transform) -> None:
        self.dataset = dataset
        self.transform = transform

    def __getitem__(self, index: int) -> Sample | Unreadable:
        try:
            return _load(self.dataset, index, self.transform)
        except InputError as error:
            return Unreadable(self.dataset.image_id(index), str(error))


def _load(dataset: LabelledImages, index: int, transform: Transform) -> Sample:
    image, targets = dataset.read(index)
    height, width = dataset.sizes[index].tolist()
    resized_file = None
    if height and (height, width) != image.shape[:2]:
        resized_file = (
            f"image {targets.image_id} of {dataset.name} is {image.shape[1]} x {image.shape[0]}, "
            f"its annotation file says {width} x {height}"
        )
    tensor, targets = transform(image, targets)
    return Sample(tensor, targets, resized_file=resized_file)


class BatchLoader:
    """An iterable of `Batch` over a torch DataLoader.

    Errors in workers arrive as `InputError` with their own one-line message. Images whose size
    differs from the stated one are reported at the 1st, 10th, 100th, ...

    Args:
        dataset: what `samples` draws from.
        samples: keys of `batch_sampler` to `Sample` or `InputError`.
        batch_sampler: yields lists of keys.
        size_divisibility: of the padded height and width; 0 pads to the largest of the batch only.
        num_workers: 0 loads in this process.
        pin_memory: for copies to a GPU.
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
            generator=torch.Generator(),  # else each epoch draws from the default one
        )
        self._loader: DataLoader | None = None
        self._num_resized_files = 0

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = self._open()
        for batch in self._received():
            if isinstance(batch, InputError):
                # Let go of the workers first: if the traceback keeps them alive, they end in a
                # garbage collection that closes their pipes unsaid, and each takes 5 seconds.
                self._loader = None
                raise InputError(str(batch))
            self._report_resized_files(batch)
            yield batch

    def _received(self) -> Iterator[Batch | InputError]:
        try:
            with naming_dead_workers():
                try:
                    yield from self._loader
                except (ConnectionError, EOFError, FileNotFoundError):
                    time.sleep(1)  # a worker may have died with a tensor in its hands: torch names it in a moment
                    raise
        except InputError:
            self._loader = None
            raise

    def _report_resized_files(self, batch: Batch) -> None:
        for line in batch.resized_files:
            self._num_resized_files += 1
            count = str(self._num_resized_files)
            if count.strip("0") == "1":
                logger.warning("%s; the image's own size is used (%s so far)", line, count)
