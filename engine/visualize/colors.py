"""One fixed colour per class; all colours here are RGB, 0..255."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from PIL import Image

RGB = tuple[int, int, int]

# The first classes, enough for most data sets: far apart, none near the black and white of label text, and clear on
# light, dark, grey and printed-circuit-green images.
FIRST: tuple[RGB, ...] = (
    (255, 77, 79),  # red
    (64, 169, 255),  # blue
    (255, 197, 23),  # yellow
    (82, 210, 70),  # green
    (214, 92, 255),  # violet
    (255, 133, 27),  # orange
    (19, 214, 204),  # turquoise
    (255, 112, 190),  # pink
    (160, 124, 72),  # brown
    (110, 110, 255),  # indigo
    (186, 222, 40),  # lime
    (0, 145, 110),  # dark green
)
NUM_COLORS = 256  # after these the colours repeat
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def class_color(label: int) -> RGB:
    """The colour of a label: the same in every picture, run and data set.

    Example:
        >>> class_color(0), class_color(0) == class_color(200)
        ((255, 77, 79), False)
    """
    return _palette()[label % NUM_COLORS]


@functools.lru_cache(maxsize=1)
def _palette() -> tuple[RGB, ...]:
    """`FIRST`, followed each time by the colour that looks most different from all before it."""
    candidates = np.stack(np.meshgrid(*(np.arange(15, 256, 20),) * 3, indexing="ij"), axis=-1).reshape(-1, 3)  # (N, 3)
    lab = _oklab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    is_clear = (lab[:, 0] > 0.45) & (lab[:, 0] < 0.93) & (chroma > 0.08)
    candidates, lab = candidates[is_clear], lab[is_clear]
    chosen = list(FIRST)
    distances = np.linalg.norm(lab[:, None] - _oklab(np.array(chosen)), axis=2).min(axis=1)
    while len(chosen) < NUM_COLORS:
        best = int(np.argmax(distances))
        chosen.append(tuple(candidates[best].tolist()))
        distances = np.minimum(distances, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(chosen)


def faded(color: RGB, strength: float) -> RGB:
    """`color` mixed with white: `strength` is 0 for white and 1 for the colour itself."""
    return tuple(round(255 - (255 - channel) * strength) for channel in color)


def text_color(background: RGB) -> RGB:
    """Black or white, whichever has more contrast with `background` (WCAG 2).

    Example:
        >>> text_color((255, 197, 23)), text_color((60, 0, 120))
        ((0, 0, 0), (255, 255, 255))
    """
    # WCAG's contrast is (lighter + 0.05) / (darker + 0.05): beyond this luminance it is larger with black.
    return BLACK if (relative_luminance(background) + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def to_bgr(picture: Image.Image) -> np.ndarray:
    """An RGB picture of Pillow as BGR uint8 (H, W, 3), OpenCV's order."""
    return cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)


def relative_luminance(color: RGB) -> float:
    """WCAG 2 relative luminance in [0, 1]."""
    return float(_linear(np.array(color)) @ (0.2126, 0.7152, 0.0722))


def _linear(colors: np.ndarray) -> np.ndarray:
    """Intensities of light in [0, 1] of sRGB values 0..255 (IEC 61966-2-1)."""
    values = colors / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _oklab(colors: np.ndarray) -> np.ndarray:
    """sRGB (N, 3) to OKLab (N, 3) (Ottosson, 2020), where equal distances look equally large."""
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(_linear(colors) @ np.transpose(to_cones)) @ np.transpose(to_lab)
