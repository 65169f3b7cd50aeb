"""What an epoch holds: images that come several times, and a share of images without boxes.

Everything is a pure function of (seed, epoch), so that a resumed run and one with other processes see the same images.
An epoch always has the same length, so that a position in the stream tells its epoch.

Shapes: n images of the data set, N places of an epoch, B images per global batch, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from engine.data.dataset import LabelledImages
from engine.data.neighbours import Neighbours, permuted
from engine.errors import printable
from engine.log import get_logger, warn_once

logger = get_logger(__name__)

_ROUNDING = 1e-9
"""Far above the rounding of sums of floats, far below what anyone writes."""
_MOST_PARTS = 10_000
"""A share is a fraction with at most this denominator, so that 0.1 is a tenth."""


@dataclass(frozen=True)
class EpochPlan:
    """How often each image is used in an epoch.

    Attributes:
        weights: (n,) float64 above 0, how often on average: each epoch rounds it up or down at random.
        is_empty: (n,) bool, images without boxes to train on.
        empty_share: the share of images without boxes in every batch, in [0, 1); None for as many as `weights` say.
            With a share, those with boxes keep their weights, and the weights of the others count among themselves.
        neighbours: of the n images, where they are tiles; None for an order that is entirely random.
    """

    weights: np.ndarray
    is_empty: np.ndarray
    empty_share: Fraction | None = None
    neighbours: Neighbours | None = None

    @property
    def length(self) -> int:
        """N, the images of an epoch; each image with a weight of 1 or more comes at least once."""
        if self.empty_share is None:
            return _whole(self.weights.sum())
        num_full = _whole(self.weights[~self.is_empty].sum())
        length = math.ceil(num_full / (1 - self.empty_share))
        while length - math.ceil(length * self.empty_share) < num_full:  # epochs round the share up or down
            length += 1
        return length

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """(n,) int64, how often each image comes in an epoch; the sum is `length`."""
        random = np.random.Generator(np.random.PCG64([seed, epoch, 1]))
        if self.empty_share is None:
            return _rounded(self.weights, self.length, random)
        counts = np.zeros(len(self.weights), dtype=np.int64)
        num_empty = int(self.empty_places(epoch).sum())
        for images, total in ((~self.is_empty, self.length - num_empty), (self.is_empty, num_empty)):
            counts[images] = _rounded(self.weights[images], total, random)
        return counts

    def empty_places(self, epoch: int) -> np.ndarray:
        """(N,) bool, the places of an epoch that images without boxes take: spread evenly over the stream.

        Of any B places in a row, floor(B * share) or one more are such, in every batch and for every process.
        """
        share, start = self.empty_share, epoch * self.length
        places = np.arange(start, start + self.length + 1, dtype=np.int64)
        # Integers, since a float would drift along the stream.
        return np.diff(places * share.numerator // share.denominator) > 0


def plan_epochs(
    dataset: LabelledImages, repeat_threshold: float = 0.0, empty_share: float = -1.0, is_logged: bool = True
) -> EpochPlan | None:
    """The plan for a training set. None if each image is used once.

    An image is used as often as its data set says, times the repeat factor of its rarest class (Gupta et al., 2019:
    LVIS, section 5): sqrt(threshold / share of the images that have the class), at least 1.

    Args:
        repeat_threshold: classes that a smaller share of the images has are repeated; 0 is off.
        empty_share: the share of images without boxes in a batch, below 1; negative is off.
        is_logged: log what the plan does.
    """
    num_images = len(dataset)
    weights = np.array([dataset.repeat_of(index) for index in range(num_images)])
    if repeat_threshold > 0:
        weights = weights * _repeat_factors(dataset, repeat_threshold, is_logged)
    share = Fraction(empty_share).limit_denominator(_MOST_PARTS) if empty_share >= 0 else None
    if share is None and (weights == 1).all():
        return None
    is_empty = np.array([dataset.num_boxes(index) == 0 for index in range(num_images)], dtype=bool)
    if share is not None and (is_empty.all() or not is_empty.any()):
        which = "no training image has boxes" if is_empty.all() else "all training images have boxes"
        if is_logged and (share > 0 or is_empty.all()):
            warn_once(f"DATALOADER.EMPTY_SHARE {empty_share:g}: {which}, so it changes nothing")
        share = None
        if (weights == 1).all():
            return None
    plan = EpochPlan(weights, is_empty, share)
    if is_logged:
        empty = f"{int(is_empty.sum())} without boxes" + ("" if share is None else f", their share {empty_share:g}")
        logger.info("an epoch has %d images, drawn from %d, %s", plan.length, num_images, empty)
    return plan


def with_neighbours(plan: EpochPlan | None, neighbours: Neighbours) -> EpochPlan:
    """`plan`, or one that uses each tile once, in the order of `neighbours`."""
    count = len(neighbours.image_of)
    plan = plan or EpochPlan(np.ones(count), np.zeros(count, dtype=bool))
    return replace(plan, neighbours=neighbours)


def planned_order(plan: EpochPlan, seed: int, epoch: int, batch_size: int, groups: np.ndarray | None) -> np.ndarray:
    """(N,) int64 images of an epoch in the order of the stream, see `engine.data.samplers.epoch_order`.

    A batch with the wanted share is of one group where both of its parts still have enough images of one group; the
    share goes before the groups.

    Args:
        groups: (n,), or None.
    """
    images = np.repeat(np.arange(len(plan.weights)), plan.counts(seed, epoch))  # (N,)
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    neighbours = plan.neighbours and plan.neighbours.of(images)
    images = images[permuted(random, len(images), neighbours)]
    takes_empty, is_empty = plan.empty_places(epoch), plan.is_empty[images]
    order = np.empty_like(images)
    if groups is None or batch_size == 1:
        order[takes_empty], order[~takes_empty] = images[is_empty], images[~is_empty]
        return order
    head = min(-epoch * len(images) % batch_size, len(images))
    starts = list(range(head, len(images) - batch_size + 1, batch_size))
    pool = _Pool(images, is_empty, groups[images])
    pool.take_any(order[:head], takes_empty[:head])
    left = [start for start in starts if not pool.take_group(*_slices(start, batch_size, order, takes_empty), random)]
    for start in left:
        pool.take_any(*_slices(start, batch_size, order, takes_empty))
    tail = starts[-1] + batch_size if starts else head
    pool.take_any(order[tail:], takes_empty[tail:])
    return order


class _Pool:
    """Images of an epoch that have no place yet: by group those with boxes and those without, in the order given."""

    def __init__(self, images: np.ndarray, is_empty: np.ndarray, groups: np.ndarray) -> None:
        self._queues = [
            [images[(groups == group) & (is_empty == wanted)].tolist()[::-1] for wanted in (False, True)]
            for group in np.unique(groups)
        ]

    def take_group(self, places: np.ndarray, takes_empty: np.ndarray, random: np.random.Generator) -> bool:
        """Fill `places` with images of one group, the fuller the likelier; False if no group has enough."""
        wanted = [int((~takes_empty).sum()), int(takes_empty.sum())]
        # How many such batches each group could still fill.
        batches = np.full(len(self._queues), np.inf)
        for kind, number in enumerate(wanted):
            if number:
                lengths = np.array([len(queues[kind]) for queues in self._queues])
                batches = np.minimum(batches, lengths // number)
        if not batches.any():
            return False
        chosen = int(np.searchsorted(np.cumsum(batches), random.random() * batches.sum(), side="right"))
        for queue, number, where in zip(self._queues[chosen], wanted, (~takes_empty, takes_empty), strict=True):
            places[where] = [queue.pop() for _ in range(number)]
        return True

    def take_any(self, places: np.ndarray, takes_empty: np.ndarray) -> None:
        """Fill `places` with the images that are left, those of one group after another."""
        for kind, where in enumerate((~takes_empty, takes_empty)):
            fullest = sorted(self._queues, key=lambda queues, kind=kind: -len(queues[kind]))
            pile = [(queues[kind], len(queues[kind])) for queues in fullest]
            number = int(where.sum())
            taken: list[int] = []
            for queue, length in pile:
                taken += [queue.pop() for _ in range(min(length, number - len(taken)))]
            places[where] = taken


def _slices(start: int, length: int, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array[start : start + length] for array in arrays]


def _repeat_factors(dataset: LabelledImages, threshold: float, is_logged: bool) -> np.ndarray:
    """(n,) factors of at least 1, see `plan_epochs`; those of the classes are logged if `is_logged`."""
    classes = [np.unique(dataset.labels(index)) for index in range(len(dataset))]
    num_images = np.bincount(np.concatenate([*classes, np.zeros(0, np.int64)]), minlength=len(dataset.class_names))
    shares = num_images / max(len(dataset), 1)  # (K,)
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(shares, 1e-12)))
    repeated = [label for label in np.argsort(-of_class, kind="stable") if num_images[label] and of_class[label] > 1]
    words = [f"{printable(dataset.class_names[label])[:60]} {of_class[label]:.2g} times" for label in repeated]
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    if is_logged:
        named = ", ".join(words[:10]) + more or "no class"
        logger.info("DATALOADER.REPEAT_THRESHOLD %g: images are repeated for %s", threshold, named)
    return np.array([of_class[labels].max(initial=1.0) for labels in classes])


def _rounded(weights: np.ndarray, total: int, random: np.random.Generator) -> np.ndarray:
    """`weights` (n,) scaled to the sum `total`, rounded up or down at random such that the mean stays: (n,) int64.

    Systematic sampling: the fractions lie end to end on a line, in random order, and each mark of a ruler with a
    random offset rounds up the one that it hits. So the sum is exact, unlike that of independent draws.
    """
    if not len(weights) or not total:
        return np.zeros(len(weights), dtype=np.int64)
    scaled = weights * (total / weights.sum())
    whole = np.floor(scaled + _ROUNDING)
    rest, order = total - int(whole.sum()), random.permutation(len(weights))
    ends = np.cumsum(np.maximum(scaled - whole, 0)[order])
    if ends[-1] > 0:
        ends *= rest / ends[-1]
    ends[-1] = rest
    marks = np.floor(ends + random.random()).astype(np.int64)
    counts = whole.astype(np.int64)
    counts[order] += np.diff(marks, prepend=0)
    return counts


def _whole(total: float) -> int:
    """`total` rounded up, at least 1."""
    return max(math.ceil(total - _ROUNDING * max(total, 1)), 1)
