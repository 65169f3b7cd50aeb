"""All that is looked at, and the registry of the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.data.doctor.examined import ExaminedSet
from engine.data.doctor.findings import Finding, merged
from engine.data.doctor.picture_facts import PictureFacts
from engine.data.tiled_dataset import TilePlan
from engine.registry import Registry

CHECKS = Registry("CHECKS")
"""Checks: (Case) -> findings. A check of what the case does not hold finds nothing."""


@dataclass(frozen=True)
class Plan:
    """What the configuration says of the training, as plain values.

    Attributes:
        max_iter: training steps.
        batch: images per step.
        base_lr: learning rate for this batch.
        optimizer: its name.
        last_drop: the iteration of the first drop of the learning rate; None if it does not drop in steps.
        warmup: steps of warm-up.
        flips: whether images are mirrored left to right.
        limits: key -> most objects per image that the model can find; 0 for no limit.
        max_dets: most objects per image and class that metrics see.
        value_range: the declared range of deep images.
    """

    max_iter: int
    batch: int
    base_lr: float
    optimizer: str = "SGD"
    last_drop: int | None = None
    warmup: int = 0
    flips: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    max_dets: int = 100
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Machine:
    """What this machine has, and what the run wants of it; bytes, 0 where it is not known.

    Attributes:
        cpus: that this process may use.
        memory: free memory of the device.
        shared_memory: free space of /dev/shm.
        disk: free space where `OUTPUT_DIR` lies.
        workers: processes that read images.
        batch_bytes: pixels of a batch as uint8.
    """

    cpus: int
    memory: int = 0
    shared_memory: int | None = None
    disk: int = 0
    workers: int = 0
    batch_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """What the run is estimated to need.

    Attributes:
        memory: bytes of a training step on the device.
        seconds: of the training steps.
        disk: bytes of all checkpoints that are kept.
        text: how these were estimated.
    """

    memory: int
    seconds: float
    disk: int
    text: str


@dataclass(frozen=True)
class AnchorFit:
    """How the anchors fit the boxes of the training sets; M boxes, perhaps a sample.

    Attributes:
        best_iou: (M,) with any anchor.
        positives: (M,) positive anchors by the assigner of the training; None if it cannot be asked without a model.
        shapes: (M, 2) width and height after resizing.
        sources: (M, 2) index of the data set, and of the box in its `ExaminedSet.boxes`.
    """

    best_iou: np.ndarray
    positives: np.ndarray | None
    shapes: np.ndarray
    sources: np.ndarray


@dataclass(frozen=True)
class Samples:
    """What an epoch of the training holds.

    Attributes:
        count: images, or tiles.
        tiles: training set -> how its images are cut; empty without `TILING`.
    """

    count: int
    tiles: Mapping[str, TilePlan] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightFacts:
    """What the file of `MODEL.WEIGHT` says.

    Attributes:
        source: as the configuration names it.
        class_names: those that it was trained on; None if it does not say.
        unmet: conventions that it was trained with and the configuration does not follow, in words.
        fault: why it cannot be used; "".
        mismatch: how its tensors fit the model, where they do not; "".
        is_remote: it was not looked at, since it would have to be downloaded.
    """

    source: str
    class_names: list[str] | None = None
    unmet: str = ""
    fault: str = ""
    mismatch: str = ""
    is_remote: bool = False


@dataclass(frozen=True)
class Case:
    """All that the checks look at; None or empty for what is not known.

    Attributes:
        datasets: those that can be read, each once.
        said: findings of reading them: what keeps a data set from being read, and what is read otherwise than written.
        pictures: data set -> facts of its image files, by index of the image; only if they were opened.
        unlisted: data set -> image files in its folder that no data set lists.
        samples: what an epoch of the training holds; None: the images of the training sets.
    """

    datasets: tuple[ExaminedSet, ...] = ()
    said: tuple[Finding, ...] = ()
    pictures: Mapping[str, PictureFacts] = field(default_factory=dict)
    unlisted: Mapping[str, list[str]] = field(default_factory=dict)
    plan: Plan | None = None
    machine: Machine | None = None
    cost: Cost | None = None
    anchors: AnchorFit | None = None
    weights: WeightFacts | None = None
    samples: Samples | None = None

    def having(self, role: str) -> list[ExaminedSet]:
        """The data sets of a role: "train", "val" or "test"."""
        return [each for each in self.datasets if role in each.roles]


Check = Callable[[Case], Iterable[Finding]]


def run_checks(case: Case) -> list[Finding]:
    """The findings of all checks, in the order in which these are registered."""
    with np.errstate(all="ignore"):  # 1e308 is a number that JSON may hold
        return merged([*case.said, *_found(case)])


def _found(case: Case) -> Iterator[Finding]:
    for _, check in CHECKS:
        yield from check(case)
