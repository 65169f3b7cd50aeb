"""Which images make up which batch, as pure functions of (seed, position).

The training stream is endless: epoch after epoch, each a permutation of all n images (or of what an `EpochPlan` makes
of them), in batches of B. Position p of the stream belongs to epoch p // n and to iteration p // B, so every rank finds
any iteration without replaying the earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import BatchSampler

from engine.data.epochs import EpochPlan, planned_order
from engine.data.neighbours import Neighbours, permuted
from engine.errors import InputError


def aspect_groups(sizes: np.ndarray) -> np.ndarray:
    """(n,) int64: 1 for images at least as wide as they are high, else 0; `sizes` is (n, 2), (height, width)."""
    return (sizes[:, 1] >= sizes[:, 0]).astype(np.int64)


def epoch_order(
    seed: int,
    epoch: int,
    num_images: int,
    batch_size: int = 1,
    groups: np.ndarray | None = None,
    neighbours: Neighbours | None = None,
) -> np.ndarray:
    """The images of one epoch in the order of the stream: an int64 permutation of range(num_images).

    With `groups`, each batch holds images of one group, as long as both groups last. The images left over stand at the
    end of the epoch, and the head of the next epoch completes the batch that straddles the two. So at most these two
    batches per epoch are mixed, and every image occurs exactly once per epoch.

    Args:
        seed: non-negative.
        batch_size: the global B.
        groups: (n,), see `aspect_groups`; None for no grouping.
        neighbours: of the n images, where they are tiles; then the permutation is theirs.
    """
    order = permuted(np.random.Generator(np.random.PCG64([seed, epoch])), num_images, neighbours)
    if groups is None or batch_size == 1:
        return order
    # The first images of the epoch complete the last batch of the one before, whatever their group.
    head = min(-epoch * num_images % batch_size, num_images)
    full, rest = [], []
    body = order[head:]
    for group in np.unique(groups):
        places = np.flatnonzero(groups[body] == group)  # in the order of the permutation
        num_full = len(places) // batch_size * batch_size
        full.append(places[:num_full].reshape(-1, batch_size))
        rest.append(places[num_full:])
    batches = np.concatenate(full)  # (b, B)
    # A batch is complete when the permutation reaches its last image; in that order the groups alternate at random.
    batches = batches[np.argsort(batches[:, -1])]
    places = np.concatenate([batches.reshape(-1), *rest])
    return np.concatenate([order[:head], body[places]])


@dataclass
class TrainBatchSampler:
    """One rank's share of each global batch, as lists of (position, image index).

    Rank r of R takes global_batch[r * B / R : (r + 1) * B / R], so that R processes together see what a single process
    would. With A accumulated passes per iteration, the share comes in A lists, one after the other.

    Attributes:
        batch_size: the global B.
        max_iter: the iteration at which the stream ends.
        start_iteration: the first iteration to yield; from there on the batches equal those of an uninterrupted run.
        groups: see `epoch_order`.
        plan: how often each image is used in an epoch; None for once.

    Raises:
        InputError: there are no images, or B is not divisible by R * A.
    """

    num_images: int
    batch_size: int
    max_iter: int
    seed: int
    start_iteration: int = 0
    groups: np.ndarray | None = None
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    plan: EpochPlan | None = None

    def __post_init__(self) -> None:
        if self.num_images == 0:
            raise InputError("there is no image to train on; see DATASETS.TRAIN and DATALOADER.FILTER_EMPTY")
        if self.batch_size < 1 or self.batch_size % (self.world_size * self.accumulate):
            passes = f" times SOLVER.ACCUMULATE ({self.accumulate})" if self.accumulate > 1 else ""
            raise InputError(
                f"SOLVER.IMS_PER_BATCH ({self.batch_size}) must be a positive multiple of the number of "
                f"processes ({self.world_size}){passes}; change one of them"
            )
        self.epoch_length = self.plan.length if self.plan else self.num_images  # images
        share = self.batch_size // self.world_size
        each, first = share // self.accumulate, self.rank * share
        self._passes = [range(start, start + each) for start in range(first, first + share, each)]

    def __len__(self) -> int:
        return max(self.max_iter - self.start_iteration, 0) * len(self._passes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.zeros(0, np.int64)
        for iteration in range(self.start_iteration, self.max_iter):
            for slots in self._passes:
                batch = []
                for slot in slots:
                    position = iteration * self.batch_size + slot
                    if position // self.epoch_length != epoch:
                        epoch = position // self.epoch_length
                        order = self._order(epoch)
                    batch.append((position, int(order[position % self.epoch_length])))
                yield batch

    def _order(self, epoch: int) -> np.ndarray:
        """The images of an epoch, see `epoch_order`."""
        if self.plan is None:
            return epoch_order(self.seed, epoch, self.num_images, self.batch_size, self.groups)
        if self.plan.empty_share is not None:
            return planned_order(self.plan, self.seed, epoch, self.batch_size, self.groups)
        images = np.repeat(np.arange(self.num_images), self.plan.counts(self.seed, epoch))
        groups = None if self.groups is None else self.groups[images]
        neighbours = self.plan.neighbours and self.plan.neighbours.of(images)
        return images[epoch_order(self.seed, epoch, len(images), self.batch_size, groups, neighbours)]


class TestBatchSampler(BatchSampler):
    """One rank's contiguous part of range(num_images) in batches of its own `batch_size`, in order, each image once.

    The last batch may be smaller; a rank without images yields nothing.
    """

    __test__ = False  # not a test class

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        part = range(num_images * rank // world_size, num_images * (rank + 1) // world_size)
        super().__init__(part, batch_size, drop_last=False)
