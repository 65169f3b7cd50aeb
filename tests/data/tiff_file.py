"""A writer of the TIFFs that libraries do not write: any number of channels, meaning, order and packing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

DEFLATE = 8


def tiff_file(
    *pages: np.ndarray,
    photometric: int = 1,
    planar: int = 1,
    compression: int = 1,
    predictor: int = 1,
    order: str = "<",
    tile: int = 0,
    tags: dict[int, Sequence[int]] | None = None,
) -> bytes:
    """The bytes of a TIFF of pages (H, W) or (H, W, N), in one strip per plane or in square tiles of `tile` pixels."""
    file = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link_at = 4
    for page in pages:
        page = page if page.ndim == 3 else page[..., None]
        height, width, channels = page.shape
        planes = [page] if planar == 1 else [page[..., k : k + 1] for k in range(channels)]
        parts = [part for plane in planes for part in (_tiles(plane, tile) if tile else [plane])]
        packed = [_packed(part, compression, predictor, order) for part in parts]
        starts = []
        for each in packed:
            starts.append(len(file))
            file += each + bytes(len(each) % 2)
        bits, kind = page.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [compression], 262: [photometric]}
        entries |= {277: [channels], 284: [planar], 317: [predictor], 339: [kind] * channels}
        sizes = [len(each) for each in packed]
        entries |= (
            {322: [tile], 323: [tile], 324: starts, 325: sizes} if tile else {273: starts, 278: [height], 279: sizes}
        )
        link_at = _add_directory(file, entries | (tags or {}), link_at, order)
    return bytes(file)


def _tiles(plane: np.ndarray, side: int) -> list[np.ndarray]:
    height, width, _ = plane.shape
    padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    rows, columns = range(0, height, side), range(0, width, side)
    return [padded[y : y + side, x : x + side] for y in rows for x in columns]


def _packed(part: np.ndarray, compression: int, predictor: int, order: str) -> bytes:
    height, width, channels = part.shape
    if predictor == 2:
        part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
    if predictor == 3:
        size = part.dtype.itemsize
        octets = part.astype(part.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width * channels, size)
        planes = octets.transpose(0, 2, 1).reshape(height, -1, channels)
        data = np.concatenate([planes[:, :1], planes[:, 1:] - planes[:, :-1]], axis=1).tobytes()
    else:
        data = part.astype(part.dtype.newbyteorder(order)).tobytes()
    return zlib.compress(data) if compression == DEFLATE else data


def _add_directory(file: bytearray, entries: dict[int, Sequence[int]], link_at: int, order: str) -> int:
    """Append the directory and its lists; returns where the link to the next one stands."""
    rows = b""
    for tag, values in sorted(entries.items()):
        kind, letter = (4, "I") if tag in (273, 279, 324, 325, 256, 257) else (3, "H")
        data = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(data) > 4:
            data, at = struct.pack(f"{order}I", len(file)), data
            file += at + bytes(len(at) % 2)
        rows += struct.pack(f"{order}HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    struct.pack_into(f"{order}I", file, link_at, len(file))
    file += struct.pack(f"{order}H", len(entries)) + rows
    file += bytes(4)
    return len(file) - 4
