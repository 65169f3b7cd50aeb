"""The length of a run in iterations."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class RunLength:
    """The length of a run.

    Attributes:
        max_iter: iterations of the whole run.
        steps: milestones of `multistep`, 0-based iterations in ascending order.
        validation_period: iterations between two validations, possibly a fraction; 0 validates only at the end.
    """

    max_iter: int
    steps: tuple[int, ...] = ()
    validation_period: Fraction = Fraction()


def iterations(num_passes: int, num_images: int, batch_size: int) -> Fraction:
    """Iterations in `num_passes` passes over the images; the last batch may reach into the next pass.

    Example:
        >>> iterations(1, num_images=5, batch_size=2)
        Fraction(5, 2)
    """
    return Fraction(num_passes * num_images, batch_size)
