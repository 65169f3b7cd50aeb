"""The sizes of image files, compared with those that an annotation file states. The files are right.

Shapes: n images; sizes are (height, width) in pixels, 0 where they are not known.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engine.data.image_file import read_size
from engine.data.reading import DEFAULT
from engine.errors import InputError

MOST_HEADERS = 20_000
"""How many stated sizes are compared with the files: all of a usual data set, a few seconds of a very large one."""
_NUM_THREADS = 8  # on a network drive most of the time is waiting


def measure_sizes(
    path_of: Callable[[int], Path], stated: np.ndarray, orientation: str = DEFAULT.orientation
) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of image files (n, 2), from their headers; the stated one where that is not read or cannot be.

    Also the indices of the images whose headers could not be read: the files are missing, or no images.

    The headers of all images without a stated size are read, and of the others at most `MOST_HEADERS`, evenly spread.

    Args:
        path_of: index of an image -> its file.
        stated: (n, 2) int32.
        orientation: see `engine.data.reading.Reading`.
    """
    is_stated = stated[:, 0] > 0
    some = np.flatnonzero(is_stated)
    if len(some) > MOST_HEADERS:
        some = some[np.linspace(0, len(some) - 1, MOST_HEADERS).astype(np.int64)]
    indices = np.sort(np.concatenate([np.flatnonzero(~is_stated), some]))

    def measure(index: int) -> tuple[int, int]:
        height, width = stated[index].tolist()
        try:
            return read_size(path_of(index), (height, width) if height else None, orientation)
        except InputError:  # reported when the image itself is read
            return 0, 0

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        read = np.array(list(pool.map(measure, indices.tolist())), dtype=np.int32).reshape(-1, 2)
    sizes, succeeded = stated.copy(), read[:, 0] > 0
    sizes[indices[succeeded]] = read[succeeded]
    return sizes, indices[~succeeded]


def size_faults(stated: np.ndarray, measured: np.ndarray) -> list[str]:
    """How the images that have another size than the stated one differ, each kind with its count; [] if none does.

    Example:
        >>> size_faults(np.array([[480, 640], [480, 640], [0, 0]]), np.array([[640, 480], [240, 320], [5, 5]]))
        ['1 with width and height exchanged', '1 resized by 0.5']
    """
    differs = (stated[:, 0] > 0) & (measured != stated).any(1)
    stated, measured = stated[differs].astype(np.float64), measured[differs].astype(np.float64)
    exchanged = (measured == stated[:, ::-1]).all(1)
    # Tools round or truncate each side, so the short side is that of the long side's factor to about a pixel.
    factors = measured.max(1, initial=1) / stated.max(1, initial=1)  # (n,)
    resized = ~exchanged & (np.abs(measured - stated * factors[:, None]) < 1.5).all(1)
    found = []
    if exchanged.any():
        found.append(f"{exchanged.sum()} with width and height exchanged")
    if resized.any():
        low, high = (float(f"{end(factors[resized]):.2g}") for end in (np.min, np.max))
        found.append(f"{resized.sum()} resized by {low:g}" + (f" to {high:g}" if high > low else ""))
    if others := int((~exchanged & ~resized).sum()):
        found.append(f"{others} of other proportions")
    return found
