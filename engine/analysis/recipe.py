"""Which settings suit a data set, a machine and a time budget: one choice a function, plain numbers in.

The rules reproduce what was found by hand on the sets of docs/results.md; each says in its `reason` which measured
numbers it follows from.

Shapes: M boxes. Sizes of images are (height, width); the size of a box is the square root of its area.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STEP = 16
"""Sides are multiples of this, pixels."""
SMALL_OBJECT = 20
"""Pixels that a small object should have in the network: two and a half cells of the finest level (stride 8)."""
LEAST_TILED = 16
"""The same where images are cut into tiles because whole ones would not fit."""
MAX_ENLARGEMENT = 1.5
"""Larger images than this times the original show nothing new."""
LEAST_SAMPLES = 4000
"""Images that a network from random weights has to see (with repeats) before it finds most objects."""
LEAST_STEPS = 1000
"""Steps are worth more than large batches below this number."""
MOST_PASSES = 200
"""Passes over the training images after which more of them teach nothing new."""
FEW_PASSES = 20
"""Passes over the training images below which these are not yet known by heart."""
ROUGH_CLASS = 0.01
"""Share of the boxes below which a class does not decide the size of all images."""


@dataclass(frozen=True)
class Choice:
    """A value, and the reason for it on one line."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Limits:
    """What a device and a time budget bear.

    Attributes:
        area: most pixels of a training image.
        least_side: the short side is not made smaller than this, unless the image is.
        pixels: in all training images together, with repeats; infinite without a time budget.
        small_object: see `SMALL_OBJECT`.
    """

    area: float
    least_side: int
    pixels: float = math.inf
    small_object: float = SMALL_OBJECT


def small_object_size(sizes: np.ndarray, labels: np.ndarray) -> float:
    """The size of objects that must not get lost: the tenth percentile, or the smallest class if that is smaller.

    Args:
        sizes: (M,) square roots of areas, pixels; M > 0.
        labels: (M,) classes. A class with less than a hundredth of the boxes, or fewer than ten, does not count.

    Example:
        >>> sizes = np.array([100.0] * 95 + [40.0] * 12)
        >>> small_object_size(sizes, np.array([0] * 95 + [1] * 12)), small_object_size(sizes, np.zeros(107))
        (40.0, 40.0)
    """
    least = max(10, ROUGH_CLASS * len(sizes))
    classes, counts = np.unique(labels, return_counts=True)
    medians = [np.median(sizes[labels == each]) for each in classes[counts >= least]]
    return float(min([np.percentile(sizes, 10), *medians]))


def choose_scale(image_size: tuple[int, int], small: float, limits: Limits) -> Choice:
    """By what factor images are resized; the value is a float.

    A time budget buys many images or large ones. Where it does not buy `LEAST_SAMPLES` of the size that the objects
    need, the area lies halfway (geometrically) between both wishes.

    Args:
        image_size: of a typical image.
        small: see `small_object_size`, pixels of the original.

    Example:
        >>> limits = Limits(area=1e6, least_side=224, pixels=4000 * 240 * 320)
        >>> round(choose_scale((480, 640), 40, limits).value, 3), round(choose_scale((480, 640), 20, limits).value, 3)
        (0.5, 0.707)
    """
    wanted = limits.small_object / max(small, 1e-6)
    reason = f"small objects have {small:.0f} pixels in the originals and should have about {limits.small_object:.0f}"
    least = min(limits.least_side / min(image_size), 1.0)
    if wanted > MAX_ENLARGEMENT:
        wanted, reason = (
            MAX_ENLARGEMENT,
            f"{reason}; more than {MAX_ENLARGEMENT:g} times the original shows nothing new",
        )
    if wanted < least:
        wanted, reason = (
            least,
            f"objects are large, but below a short side of {limits.least_side} pixels they lose detail",
        )
    area = math.prod(image_size) * wanted**2
    quick = limits.pixels / LEAST_SAMPLES
    most = min(
        limits.area, max(math.sqrt(area * quick), quick) if area > quick else area, limits.pixels * 2 / LEAST_SAMPLES
    )
    if area > most:
        wanted = math.sqrt(most / math.prod(image_size))
        what = "fit into memory" if most == limits.area else "leave time for enough steps"
        reason = f"{reason}; {most / 1000:.0f} thousand pixels per image {what}"
    return Choice(wanted, reason)


def scaled_sides(image_size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(short, long) side of a resized image; the short one is a multiple of `STEP`.

    Example:
        >>> scaled_sides((480, 640), 0.51)
        (240, 320)
    """
    short, long = sorted(image_size)
    side = max(round(short * scale / STEP) * STEP, 2 * STEP)
    return side, max(math.ceil(side * long / short), side)


def choose_train_sides(short: int, passes: float) -> Choice:
    """Short sides in training; the value is a tuple of int: five around that of testing, or only that one.

    Args:
        short: side in testing.
        passes: over the training images, about.

    Example:
        >>> choose_train_sides(240, 30).value, choose_train_sides(240, 5).value
        ((208, 224, 240, 256, 272), (240,))
    """
    if passes < FEW_PASSES:
        reason = f"one size, which wastes no padding in a batch: in {passes:.2g} passes no image is learnt by heart"
        return Choice((short,), reason)
    step = max(round(0.065 * short / STEP), 1) * STEP  # 13 % either way
    sides = tuple(max(short + count * step, 2 * STEP) for count in (-2, -1, 0, 1, 2))
    return Choice(sides, "several sizes, so that every pass over the images shows something new")


@dataclass(frozen=True)
class TilePlan:
    """Square tiles of `size` pixels of the original, with `overlap` pixels, shown at `side` pixels.

    `keep_full`: the whole image is shown, too.
    """

    size: int
    overlap: int
    side: int
    keep_full: bool = False


def num_tiles(image_size: tuple[int, int], plan: TilePlan) -> int:
    """How many tiles an image has.

    Example:
        >>> num_tiles((300, 1000), TilePlan(400, 100, 400))
        3
    """
    step = plan.size - plan.overlap
    return math.prod(max(math.ceil((side - plan.overlap) / step), 1) for side in image_size)


def choose_tiles(
    image_size: tuple[int, int], sizes: np.ndarray, small: float, scale: float, area: float
) -> Choice | None:
    """A `TilePlan` if objects would be too small in whole images of `scale`; else None.

    Tiles are worth their cost if most objects are small, if tiles show them at least one and a half times as large, and
    if an image has several of them.

    Args:
        image_size: of a typical image.
        sizes: (M,) of all boxes, pixels of the original.
        small: see `small_object_size`.
        scale: of `choose_scale`.
        area: pixels of a tile as the network sees it, at most.

    Example:
        >>> small = np.full(50, 16.0)
        >>> choose_tiles((2048, 2048), small, 16.0, 0.2, 400**2).value
        TilePlan(size=384, overlap=64, side=384, keep_full=False)
        >>> choose_tiles((480, 640), small, 16.0, 1.0, 400**2) is None
        True
    """
    enlarged = min(LEAST_TILED / max(small, 1e-6), MAX_ENLARGEMENT)
    are_small = small * scale < LEAST_TILED / 1.5 and np.median(sizes) * scale < SMALL_OBJECT
    if not are_small or enlarged < 1.5 * scale:
        return None
    side = max(int(math.sqrt(area)) // 32 * 32, 128)
    size = max(round(side / enlarged / 32) * 32, 64)
    if max(image_size) < 2 * size:
        return None
    # Objects of up to three quarters of the overlap lie whole in some tile; for larger ones there is the full picture.
    overlap = int(min(math.ceil(max(np.percentile(sizes, 90) * 4 / 3, size / 8) / 32) * 32, size // 2))
    reason = (
        f"small objects ({small:.0f} pixels) would have {small * scale:.0f} pixels in whole images of "
        f"{image_size[1]} x {image_size[0]}; in tiles they have {small * side / size:.0f}"
    )
    has_larger = bool((sizes > 0.75 * overlap).mean() > 0.01)
    return Choice(TilePlan(size, overlap, side, has_larger), reason)


def choose_batch(num_samples: int, num_images: int, most: int = 8) -> Choice:
    """Images per step.

    Args:
        num_samples: images that can be trained on within the budget, with repeats.
        num_images: in the training set.
        most: that fit into memory.

    Example:
        >>> choose_batch(20_000, 300).value, choose_batch(4_000, 300).value, choose_batch(4_000, 1).value
        (8, 4, 1)
    """
    value = next((size for size in (16, 8) if size <= most and num_samples >= LEAST_STEPS * size), min(4, most))
    reason = f"{LEAST_STEPS} steps or more matter more than a larger batch"
    if value > num_images:
        return Choice(num_images, f"there are only {num_images} training images")
    return Choice(value, reason)


def batch_area(sides: Sequence[int], long_side: float, batch: int, divisibility: int) -> float:
    """Mean pixels per image of a batch, padded to the largest of its images, each of a side drawn from `sides`.

    Args:
        sides: short sides, each as likely as the others.
        long_side: of an image, relative to its short side.
        batch: images.
        divisibility: sides are padded to a multiple of this.

    Example:
        >>> batch_area([32, 64], 2.0, 2, 32) == 1 / 4 * 32 * 64 + 3 / 4 * 64 * 128
        True
    """
    ordered, count, total = sorted(sides), len(sides), 0.0
    for place, side in enumerate(ordered, start=1):
        share = (place / count) ** batch - ((place - 1) / count) ** batch  # of the batches it is the largest
        padded = [math.ceil(each / divisibility) * divisibility for each in (side, side * long_side)]
        total += share * math.prod(padded)
    return total


def choose_iterations(
    seconds_per_step: float,
    budget_seconds: float,
    reserved_seconds: float,
    num_images: int,
    batch: int,
    what: str = "images",
) -> Choice:
    """Training steps that fit a time budget, but not more than `MOST_PASSES` over the images.

    Args:
        num_images: or tiles, which `what` says.
        reserved_seconds: of the budget, for the start and the test.

    Example:
        >>> choose_iterations(0.5, 600, 100, 300, 8).value
        1000
        >>> choose_iterations(0.1, 6000, 0, 10, 4).value
        1000
    """
    affordable = max(int((budget_seconds - reserved_seconds) / seconds_per_step), 1)
    limit = max(math.ceil(MOST_PASSES * num_images / batch), LEAST_STEPS)
    value = min(affordable, limit)
    value = value // 10 * 10 or value
    passes = value * batch / num_images
    if affordable > limit:
        reason = f"{passes:.0f} passes over {num_images} {what}; more would teach little"
    else:
        reason = (
            f"what fits into {budget_seconds / 60:g} minutes at {seconds_per_step:.2f} s per step as measured here, "
            f"{reserved_seconds:.0f} s of them for start and test: {passes:.1f} passes over {num_images} {what}"
        )
    return Choice(value, reason)


def choose_passes(num_images: int) -> Choice:
    """Passes over the training images on a GPU from pretrained weights: 12 for large sets, more for small ones.

    Example:
        >>> [choose_passes(n).value for n in (10, 300, 3000, 100_000)]
        [100, 69, 21, 12]
    """
    value = int(min(max(12 * math.sqrt(10_000 / max(num_images, 1)), 12), 100))
    return Choice(value, f"12 passes are usual for large sets; {num_images} images need {value}")


def choose_ema(iterations: int) -> Choice:
    """Decay of the average of the weights: over the last third of the steps; 0 for very short runs.

    Example:
        >>> [choose_ema(n).value for n in (100, 300, 1500, 100_000)]
        [0.0, 0.99, 0.998, 0.9998]
    """
    if iterations < 300:
        return Choice(0.0, "too few steps to average the weights over")
    value = min(round(1 - 3 / iterations, 4), 0.9998)
    return Choice(value, f"the test uses an average of the weights over about the last {1 / (1 - value):.0f} steps")


def choose_anchor_factor(share_without: Mapping[float, float]) -> Choice:
    """Anchor size of a level in strides.

    Args:
        share_without: factor -> share of the boxes that get no positive anchor with it; the first one is preferred.

    Example:
        >>> choose_anchor_factor({4: 0.01, 8: 0.008}).value, choose_anchor_factor({4: 0.05, 8: 0.0}).value
        (4, 8)
    """
    first = next(iter(share_without))
    best = min(share_without, key=lambda factor: share_without[factor])
    value = first if share_without[first] - share_without[best] < 0.005 else best
    others = ", ".join(f"{share:.1%} with {each:g}" for each, share in share_without.items() if each != value)
    reason = f"{value:g} strides: {share_without[value]:.1%} of the boxes get no positive anchor"
    return Choice(value, f"{reason} ({others})" if others else reason)


_UPRIGHT = """
    aeroplane airplane animal bear bed bicycle bike bird boat bottle building bus car cat chair child couch cow cup dog
    door elephant face giraffe hat head helmet horse house laptop man motorbike motorcycle people pedestrian person
    sheep sign sofa table train tree truck tv tvmonitor van vest window woman zebra
"""
_WRITING = "character digit letter plate number text word left right arrow"
UPRIGHT_NAMES, MIRRORED_NAMES = frozenset((*_UPRIGHT.split(), *_WRITING.split())), frozenset(_WRITING.split())
"""Words in the names of things that are always upright, and of those that mean something else in a mirror."""


def choose_horizontal_flip(class_names: Sequence[str]) -> Choice:
    """Probability of mirroring left to right: 0 for writing.

    Example:
        >>> choose_horizontal_flip(["licence_plate"]).value, choose_horizontal_flip(["knot"]).value
        (0.0, 0.5)
    """
    named = _with_words(class_names, MIRRORED_NAMES)
    if named:
        return Choice(0.0, f"a mirrored {named[0]} is something else")
    return Choice(0.5, "mirrored images are as good as the others; if left and right differ, write 0.0")


def _with_words(class_names: Sequence[str], words: frozenset[str]) -> list[str]:
    """Those that hold one of `words`, or all ten digits; fewer numbers are most likely the ids of nameless classes."""
    if {*"0123456789"} <= set(class_names):
        return list(class_names)
    return [name for name in class_names if words & set(re.split(r"[\W_]+", name.lower()))]


def choose_vertical_flip(class_names: Sequence[str], brighter_above: np.ndarray) -> Choice:
    """Probability of mirroring top to bottom: 0 where up and down differ.

    Args:
        brighter_above: (n,) for some images, the mean brightness of the upper half minus that of the lower half, in
            standard deviations of the image's brightness. Daylight and lamps come from above.

    Example:
        >>> choose_vertical_flip(["scratch", "dent"], np.array([0.1, -0.2, 0.0])).value
        0.5
        >>> choose_vertical_flip(["Person", "traffic light"], np.array([])).value
        0.0
    """
    upright = _with_words(class_names, UPRIGHT_NAMES)
    if upright and len(upright) >= len(class_names) / 2:
        return Choice(0.0, f"objects such as {upright[0]} are always upright")
    if len(brighter_above) >= 10:
        mean, deviation = brighter_above.mean(), brighter_above.std()
        if mean > 0.25 and mean > 3 * deviation / math.sqrt(len(brighter_above)) and mean > 0.5 * deviation:
            return Choice(0.0, "the images are brighter at the top, so up and down differ")
    return Choice(0.5, "nothing shows that up and down differ; if they do, write 0.0")
