"""The steps that `INPUT.AUGMENTATIONS` may name, and their arguments. What they do is in `engine.data.transforms`."""

from __future__ import annotations

from typing import Any

from engine.config.declaration import LOW_AND_HIGH, MAX_SIZE, MIN_SIZE, Key, Steps, key


def _argument(name: str, default: Any, doc: str, **limits: Any) -> Key:
    return key(name, default, doc, ours=True, **limits)


def _prob(default: float = 0.5) -> Key:
    return _argument("prob", default, "Probability of the step.", between=(0, 1))


# fmt: off
_FILL = _argument("fill", -1.0, "Grey level (0..255) of what has no image; -1: the mean colour of the image.",
    between=(-1, 255))
_MIN_VISIBILITY = _argument("min_visibility", 0.25, "A box of which less than this share of the area remains becomes "
    "an ignore region.", between=(0, 1))


def _scale(low: float, high: float, doc: str, most: float = 1.0) -> Key:
    return _argument("scale", (low, high), doc, length=LOW_AND_HIGH, between=(0.01, most))


_STEPS = {
    "PhotometricDistortion": (
        _prob(),
        _argument("brightness", 0.125, "Pixels times a factor drawn from [1 - x, 1 + x].", between=(0, 10)),
        _argument("contrast", 0.5, "The same for their distance from the mean.", between=(0, 10)),
        _argument("saturation", 0.5, "The same for their distance from grey.", between=(0, 10)),
        _argument("hue", 0.05, "A shift drawn from [-x, x], in turns of the colour circle.", between=(0, 0.5)),
    ),
    "Expand": (
        _prob(),
        _argument("ratio", (1.0, 4.0), "Sides of the canvas relative to the image's.", length=LOW_AND_HIGH,
            between=(1, 8)),
        _FILL,
    ),
    "IoUCrop": (
        _prob(1.0),
        _argument("min_ious", (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0), "IoUs of a box with the window to draw from; 1: no "
            "crop.", between=(0, 1), not_empty=True),
        _scale(0.3, 1.0, "Sides of the window relative to the image's."),
        _argument("num_tries", 40, "Windows to try before the image is left whole.", between=(1, 10_000)),
        _MIN_VISIBILITY,
    ),
    "RandomCrop": (
        _prob(),
        _scale(0.5, 1.0, "Sides of the window relative to the image's."),
        _argument("size", (), "(height, width) of the window in pixels instead; () is off.", type=tuple[int, ...],
            between=(1, MAX_SIZE)),
        _MIN_VISIBILITY,
    ),
    "Rotate90": (
        _prob(0.75),
        _argument("turns", (1, 2, 3), "Quarter turns, counter-clockwise, to draw from.", between=(1, 3),
            not_empty=True),
    ),
    "HorizontalFlip": (_prob(),),
    "VerticalFlip": (_prob(),),
    "Blur": (
        _prob(),
        _argument("sigma", (0.1, 2.0), "Standard deviation, pixels.", length=LOW_AND_HIGH, between=(0.01, 100)),
    ),
    "Noise": (
        _prob(),
        _argument("sigma", (2.0, 10.0), "Standard deviation, levels of 0..255.", length=LOW_AND_HIGH, between=(0, 255)),
    ),
    "JPEG": (_prob(), _argument("quality", (30, 90), "Quality of the encoder.", length=LOW_AND_HIGH, between=(1, 100))),
    "CLAHE": (
        _prob(),
        _argument("clip_limit", (1.0, 4.0), "Limit of the contrast within a tile.", length=LOW_AND_HIGH,
            between=(0.01, 100)),
        _argument("num_tiles", 8, "Tiles along each side.", between=(1, 64)),
    ),
    "Cutout": (
        _prob(),
        _argument("num_holes", (1, 3), "Number of rectangles.", length=LOW_AND_HIGH, between=(1, 1000)),
        _scale(0.05, 0.2, "Their sides relative to the image's."),
        _FILL,
        _MIN_VISIBILITY,
    ),
    "Mosaic": (
        _prob(),
        _argument("center", (0.3, 0.7), "Where the four images meet, as a share of width and height.",
            length=LOW_AND_HIGH, between=(0, 1)),
        _scale(0.5, 1.0, "Factor on the images.", most=4.0),
        _FILL,
        _MIN_VISIBILITY,
    ),
    "MixUp": (
        _prob(),
        _argument("share", (0.4, 0.6), "Weight of the sample's own image.", length=LOW_AND_HIGH, between=(0, 1)),
        _MIN_VISIBILITY,
    ),
    "CopyPaste": (
        _prob(),
        _argument("num_objects", (1, 3), "Number of objects to paste.", length=LOW_AND_HIGH, between=(1, 1000)),
        _argument("only_empty", False, "Paste only into images without boxes."),
        _argument("classes", (), "Names of the classes to paste; () for all.", type=tuple[str, ...]),
        _scale(0.8, 1.25, "Factor on their size.", most=4.0),
        _argument("feather", 4, "Width of the seam in which they fade into the image, pixels.", between=(0, 1000)),
        _argument("max_overlap", 0.0, "Largest part of the smaller of two boxes that may lie in the other.",
            between=(0, 1)),
        _argument("flip", True, "Mirror them at random."),
        _MIN_VISIBILITY,
    ),
    "LargeScaleJitter": (
        _argument("size", (), "(height, width) of the window, pixels.", type=tuple[int, int],
            between=(MIN_SIZE, MAX_SIZE), not_empty=True),
        _scale(0.1, 2.0, "Factor; at 1 the image just fits into the window.", most=5.0),
        _MIN_VISIBILITY,
    ),
    "MultiScale": (
        _argument("min_sizes", (), "Short sides, pixels; one is drawn for each batch.", type=tuple[int, ...],
            between=(MIN_SIZE, MAX_SIZE), not_empty=True),
        _argument("max_size", 1333, "Limit of the long side, pixels.", between=(MIN_SIZE, MAX_SIZE)),
    ),
    "Albumentations": (
        _prob(1.0),
        _argument("pipeline", "", "A file that albumentations.save wrote (.yaml or .json), or module:name of a "
            "pipeline in a module of IMPORTS.", not_empty=True),
        _MIN_VISIBILITY,
    ),
}
# fmt: on

STEPS = Steps(
    "engine.data.transforms.AUGMENTATIONS",
    {name: {argument.name: argument for argument in arguments} for name, arguments in _STEPS.items()},
)
"""Step -> argument -> its declaration."""
