"""Which boxes of an image are trained on: samplers, looked up by name (`MODEL.ROI_HEADS.SAMPLER`).

Random numbers depend on the step and the image, not on the process: one process draws the same boxes as two.

Shapes: P boxes (anchors or proposals), S of them to choose from.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.modeling.assign import NEGATIVE
from engine.registry import Registry

IOU_BINS = 3
"""`sample_balanced` draws evenly from this many ranges of IoU (Pang et al., 2019: Libra R-CNN, section 3.1)."""

SAMPLERS = Registry("SAMPLERS")


@dataclass
class Pool:
    """The boxes of one image that a sampler chooses from.

    Attributes:
        matched: (P,) int64, index of a gt box, NEGATIVE or IGNORED.
        ious: (P,) IoU with the nearest gt box.
        losses: (S,) indices -> (S,) the present losses of these boxes.
        generator: on the device of the boxes.
    """

    matched: Tensor
    ious: Tensor
    losses: Callable[[Tensor], Tensor]
    generator: torch.Generator


Sampler = Callable[[Pool, Tensor, int], Tensor]
"""(pool, indices (S,) of positives or of negatives, how many) -> the chosen indices."""


@SAMPLERS.register("random")
def sample_random(pool: Pool, indices: Tensor, num: int) -> Tensor:
    """Any of them, all equally probable."""
    return indices[_permutation(pool, len(indices))[:num]]


@SAMPLERS.register("ohem")
def sample_hardest(pool: Pool, indices: Tensor, num: int) -> Tensor:
    """Those of largest loss (Shrivastava et al., 2016: online hard example mining)."""
    return indices[pool.losses(indices).topk(num).indices]


@SAMPLERS.register("balanced")
def sample_balanced(pool: Pool, indices: Tensor, num: int) -> Tensor:
    """Positives evenly from all gt boxes, negatives evenly from ranges of IoU (Libra R-CNN), at random within each.

    A group with fewer boxes than its share gives all it has; the others fill up.
    """
    ious = pool.ious[indices]
    bins = (ious / ious.amax().clamp(min=1e-6) * IOU_BINS).long().clamp(max=IOU_BINS - 1)
    matched = pool.matched[indices]
    groups = torch.where(matched >= 0, matched, bins)  # (S,)
    shuffled = _permutation(pool, len(indices))
    members = groups[shuffled, None] == groups.unique()[None]  # (S, groups)
    turns = torch.where(members, members.cumsum(dim=0), 0).sum(dim=1)  # 1 for the first of its group, ...
    return indices[shuffled[turns.argsort(stable=True)[:num]]]


@dataclass(frozen=True)
class Sampling:
    """How many boxes of an image are trained on, and which.

    Attributes:
        num: positives and negatives together.
        positive_fraction: largest part of them that is positive.
        choose: from the registry SAMPLERS.
    """

    num: int
    positive_fraction: float
    choose: Sampler

    @torch.no_grad()
    def __call__(self, pool: Pool) -> Tensor:
        """Indices of the chosen boxes, at most `num`, positives first. Negatives replace missing positives."""
        positives = (pool.matched >= 0).nonzero()[:, 0]
        negatives = (pool.matched == NEGATIVE).nonzero()[:, 0]
        num_positive = min(len(positives), int(self.num * self.positive_fraction))
        num_negative = min(len(negatives), self.num - num_positive)
        chosen = [self._some(pool, *group) for group in ((positives, num_positive), (negatives, num_negative))]
        return torch.cat(chosen)

    def _some(self, pool: Pool, indices: Tensor, num: int) -> Tensor:
        return indices if num == len(indices) else self.choose(pool, indices, num)


def draw_seed() -> int:
    """A seed for this step, from torch's own generator, which is in the same state on every process."""
    return int(torch.randint(2**31, ()))


def generator_of(seed: int, image_id: int | str, device: torch.device) -> torch.Generator:
    """The random numbers of one image in a step."""
    # crc32, since Python's hash of a string differs from process to process.
    return torch.Generator(device).manual_seed(zlib.crc32(str(image_id).encode(), seed))


def _permutation(pool: Pool, length: int) -> Tensor:
    return torch.randperm(length, generator=pool.generator, device=pool.matched.device)
