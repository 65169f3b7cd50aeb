"""How long a run is, counted in iterations as everything else is."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class RunLength:
    """A run in iterations.

    Attributes:
        max_iter: iterations of the whole run.
        steps: milestones of `multistep`: 0-based iterations that do not decrease.
        validation_period: iterations between two validations, perhaps no whole number; 0: only the one at the end.
    """

    max_iter: int
    steps: tuple[int, ...] = ()
    validation_period: Fraction = Fraction()


def iterations(num_passes: int, num_images: int, batch_size: int) -> Fraction:
    """Iterations that so many passes over the images take; the last one may reach into the next pass.

    Example:
        >>> iterations(1, num_images=5, batch_size=2)
        Fraction(5, 2)
    """
    return Fraction(num_passes * num_images, batch_size)
