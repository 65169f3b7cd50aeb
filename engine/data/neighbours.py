"""A random order of the tiles of large images that does not decode an image anew for every tile.

A fully random order would: with 100 tiles per image, the next tile of an image is drawn long after it was forgotten.
Here tiles come in portions of a random few of an image, and the portions of a few images at once are mixed. Everything
is a pure function of the random generator.

Shapes: n tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PORTION = 16
"""Tiles of an image that are drawn near each other, so an image is decoded once for so many."""


@dataclass(frozen=True)
class Neighbours:
    """Which tiles are of one image.

    Attributes:
        image_of: (n,) int64.
        at_once: the portions that are mixed, as many as images are kept decoded.
    """

    image_of: np.ndarray
    at_once: int

    def of(self, tiles: np.ndarray) -> Neighbours:
        """The same of some tiles (m,), with repetitions or without."""
        return Neighbours(self.image_of[tiles], self.at_once)

    def permutation(self, random: np.random.Generator) -> np.ndarray:
        """(n,) int64, a permutation of range(n) in which portions stay together."""
        order = random.permutation(len(self.image_of))
        images = self.image_of[order]
        by_image = np.argsort(images, kind="stable")
        in_groups = images[by_image]
        begins = np.flatnonzero(np.diff(in_groups, prepend=-1))
        rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
        is_first = rank % PORTION == 0  # of a portion; those of an image are of random tiles, as `order` is
        portion = np.empty_like(order)
        portion[by_image] = np.cumsum(is_first) - 1
        blocks = random.permutation(int(is_first.sum())) // self.at_once
        # Not in their present order, in which the first portions of all images come first.
        return order[np.lexsort((random.permutation(len(order)), blocks[portion]))]


def permuted(random: np.random.Generator, count: int, neighbours: Neighbours | None = None) -> np.ndarray:
    """A random permutation of range(count), that of `neighbours` if they are given."""
    return random.permutation(count) if neighbours is None else neighbours.permutation(random)
