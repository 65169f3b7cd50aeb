"""The size that an image is scaled to, and scaling it without torch.

Shapes: H W, C channels; in a pass, n lines in and m lines out of P values each.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

_LINES_AT_ONCE = 16  # in: few, since a block of weights is mostly zeros; enough for a matrix product
_MOST_BITS = 22
_EXACT_IN_FLOAT32 = 16  # bits of weights whose products with bytes sum to less than 2**24


def resized_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """(height, width) scaled to a short side of `min_size`, or less where the long side would exceed `max_size`.

    Like in the reference, the long side is floored and a short side that `max_size` limits is rounded, except that the
    long side computed back from a rounded short side never exceeds `max_size`, and no side is 0.

    Example:
        >>> resized_size((480, 640), 800, 1333), resized_size((200, 1000), 800, 1333)
        ((800, 1066), (267, 1333))
    """
    height, width = size
    short, long = min(size), max(size)
    if long / short * min_size > max_size:
        min_size = int(round(max_size * short / long))
    new_short = max(min_size, 1)
    new_long = max(min(int(new_short * long / short), max_size), 1)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image (H, W, C), uint8 or float32, scaled to `size` (height, width): `data.transforms.resize_pixels` in NumPy.

    Bilinear with antialiasing, as Pillow has it: along x, then along y, each output pixel a weighted mean of those in
    its reach. Bytes are weighted by integers and rounded after each pass, with the bits of torch's kernel; floats agree
    with torch's to rounding.

    Example:
        >>> resized(np.uint8([[[0], [100], [200], [40]]]), (1, 2))[..., 0].tolist()
        [[71, 117]]
    """
    height, width = image.shape[:2]
    if size[1] != width:
        columns = _transposed(image).reshape(width, -1)  # (W, HC)
        image = _transposed(_scaled_lines(columns, size[1]).reshape(size[1], height, -1))
    if size[0] != height:
        image = _scaled_lines(image.reshape(height, -1), size[0]).reshape(size[0], size[1], -1)  # (H', W'C)
    return image


def _transposed(image: np.ndarray) -> np.ndarray:
    """(H, W, C) as (W, H, C), contiguous."""
    if image.shape[2] <= 4:  # several times as fast
        return cv2.transpose(image).reshape(image.shape[1], image.shape[0], -1)
    return np.ascontiguousarray(image.transpose(1, 0, 2))


def _scaled_lines(lines: np.ndarray, count: int) -> np.ndarray:
    """Lines (n, P) scaled to (count, P), block by block as products of matrices."""
    first, weights, bits = _weights(len(lines), count, lines.dtype == np.uint8)
    reach = weights.shape[1]
    dtype = np.float32 if bits <= _EXACT_IN_FLOAT32 else np.float64
    scaled = np.empty((count, lines.shape[1]), lines.dtype)
    step = max(_LINES_AT_ONCE * count // len(lines), 1)
    for begin in range(0, count, step):
        starts = first[begin : begin + step]
        start, end = starts[0], min(starts[-1] + reach, len(lines))
        block = np.zeros((len(starts), end - start + reach), dtype)  # the last columns are of no line
        columns = (starts - start)[:, None] + np.arange(reach)
        np.put_along_axis(block, columns, weights[begin : begin + step].astype(dtype), axis=1)
        sums = block[:, : end - start] @ lines[start:end].astype(dtype, copy=False)
        if lines.dtype == np.uint8:
            sums += 2.0 ** (bits - 1)
            sums *= 2.0**-bits
        scaled[begin : begin + step] = sums  # whole numbers below 256, which lose their fraction
    return scaled


def scaling_matrix(length: int, count: int, whole: bool) -> np.ndarray:
    """The weights (count, length) float64 with which `resized` makes `count` lines of `length`.

    Args:
        whole: those of bytes, multiples of a power of 2; a sum of bytes by them is rounded to `floor(sum + 0.5)`.

    Example:
        >>> scaling_matrix(2, 4, True).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    first, weights, bits = _weights(length, count, whole)
    reach = weights.shape[1]
    matrix = np.zeros((count, length + reach))  # the last columns are of no line
    np.put_along_axis(matrix, first[:, None] + np.arange(reach), weights * 2.0**-bits, axis=1)
    return matrix[:, :length]


@lru_cache(maxsize=64)  # the images of most data sets have few sizes
def _weights(length: int, count: int, whole: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """How `count` lines are made of `length`: the first line of each (count,), and the weights (count, reach).

    Whole weights are multiples of 2**-bits, as many bits as make the largest one fit into 16 with its sign.

    Returns:
        first, weights, bits (0 unless `whole`).
    """
    ratio = length / count
    support = max(ratio, 1.0)
    centers = ratio * (np.arange(count) + 0.5)
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    num = np.minimum((centers + support + 0.5).astype(np.int64), length) - first
    offsets = np.arange(num.max())
    distances = np.abs(first[:, None] + offsets - centers[:, None] + 0.5) / support
    weights = np.where(offsets < num[:, None], np.maximum(1 - distances, 0), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    if whole:
        while bits < _MOST_BITS and int(weights.max() * 2 ** (bits + 1) + 0.5) < 1 << 15:
            bits += 1
        weights = np.floor(weights * 2**bits + 0.5)
    return first, weights, bits
