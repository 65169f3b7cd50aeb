"""Images in NumPy's own files (`.npy`): (H, W) or (H, W, C), of plain numbers.

The header is read here and the samples are taken as they lie, so that nothing in a file can be run as code.
"""

from __future__ import annotations

import ast
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

MAGIC = b"\x93NUMPY"
_PLAIN = re.compile(r"[<>|=]?(u[1248]|i[1248]|f[248])")
_MOST_HEADER = 10_000


@dataclass(frozen=True)
class Layout:
    """Where the samples lie.

    Attributes:
        dtype: integers or floats.
        shape: (H, W) or (H, W, C).
        order: "C" or "F", see NumPy.
        starts_at: byte of the first sample.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    order: str
    starts_at: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the samples."""
        count = 1
        for side in self.shape:  # not NumPy's product, which may overflow
            count *= side
        return count * self.dtype.itemsize


def read_layout(stream: BinaryIO) -> Layout:
    """The layout that the header of a `.npy` file states.

    Raises:
        ValueError: the header is damaged, or the array is not an image; says why.
    """
    start = stream.read(12)
    if len(start) < 12 or start[6] not in (1, 2, 3):
        raise ValueError("its NumPy header is damaged")
    wide = start[6] > 1
    (length,) = struct.unpack("<I" if wide else "<H", start[8 : 12 if wide else 10])
    starts_at = (12 if wide else 10) + length
    stream.seek(12 if wide else 10)
    text = stream.read(min(length, _MOST_HEADER))
    try:
        fields = ast.literal_eval(text.decode("latin1").strip())
        descr, shape, is_fortran = fields["descr"], fields["shape"], fields["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise ValueError("its NumPy header is damaged") from None
    if not (isinstance(descr, str) and _PLAIN.fullmatch(descr)):
        raise ValueError("holds no integers or floats; save the image as a plain array of numbers")
    is_shape = isinstance(shape, tuple) and all(type(side) is int and side > 0 for side in shape)
    if not (is_shape and len(shape) in (2, 3)):
        raise ValueError(f"has the shape {shape if is_shape else '?'}; an image has (H, W) or (H, W, C)")
    return Layout(np.dtype(descr), shape, "F" if is_fortran is True else "C", starts_at)


def read_array(data: bytes, layout: Layout) -> np.ndarray:
    """The samples of a whole file, (H, W) or (H, W, C), in the byte order of this machine."""
    count = layout.num_bytes // layout.dtype.itemsize
    flat = np.frombuffer(data, layout.dtype, count, layout.starts_at)
    array = flat.reshape(layout.shape, order=layout.order)
    return np.array(array, dtype=layout.dtype.newbyteorder("="), order="C")  # a copy: `data` cannot be written to
