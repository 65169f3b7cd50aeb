"""What opening an image file tells of it, in a few bytes per image.

Shapes: n images, H W; sizes are (height, width).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from engine.data.image_file import collected_damage, read_samples
from engine.data.image_header import BrokenHeaderError, read_header
from engine.data.reading import DEFAULT, Reading
from engine.device import num_cpus
from engine.errors import InputError

THUMB = 16
"""Sides of a thumbnail, pixels."""
_BANDS = {1: "grey", 2: "grey and transparency", 3: "colour", 4: "colour and transparency"}
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
_CMYK = "CMYK"


@dataclass(frozen=True)
class Look:
    """One image file.

    Attributes:
        fault: why it cannot be read; "".
        damage: what the decoder said of it although it could be read; "".
        digest: of its bytes.
        bits: difference hash, see `difference_hash`.
        thumb: (THUMB, THUMB) uint8, grey.
        channels: as stored, in words; "" if it is not known.
        orientation: 1..8 as in EXIF.
        depth: type of the samples: "uint8", "uint16", "float32", ...
        low, high: lowest and highest finite sample.
    """

    fault: str = ""
    damage: str = ""
    digest: bytes = b""
    bits: int = 0
    thumb: np.ndarray | None = None
    channels: str = ""
    orientation: int = 1
    depth: str = "uint8"
    low: float = 0.0
    high: float = 0.0


@dataclass
class PictureFacts:
    """The image files of one data set, by index of the image."""

    looks: list[Look] = field(default_factory=list)

    def hashes(self) -> np.ndarray:
        """(n,) uint64 difference hashes."""
        return np.array([each.bits for each in self.looks], dtype=np.uint64)


def look_at_all(
    path_of: Callable[[int], Path], count: int, tick: Callable[[], object] = lambda: None, reading: Reading = DEFAULT
) -> PictureFacts:
    """Open the files of a data set, several at a time; `tick` is called after each."""

    def look(index: int) -> Look:
        seen = look_at(path_of(index), reading)
        tick()
        return seen

    with ThreadPoolExecutor(num_cpus()) as pool:
        return PictureFacts(list(pool.map(look, range(count))))


def look_at(path: Path, reading: Reading = DEFAULT) -> Look:
    """Read an image file."""
    try:
        with collected_damage() as damage:
            samples = read_samples(path, reading=reading)
        data = path.read_bytes()
    except (InputError, OSError) as error:
        return Look(fault=str(error))
    orientation = 1
    with suppress(BrokenHeaderError), path.open("rb") as stream:
        header = read_header(stream)
        orientation = header.orientation if header else 1
        stream.seek(0)
        channels = _channels(stream)
    grey = _grey(samples)
    finite = samples[np.isfinite(samples)] if samples.dtype.kind == "f" else samples
    small = cv2.resize(grey, (THUMB + 1, THUMB), interpolation=cv2.INTER_AREA)
    return Look(
        damage="; ".join(line.partition(": ")[2] for line in damage),
        digest=hashlib.blake2b(data, digest_size=16).digest(),
        bits=difference_hash(grey),
        thumb=np.ascontiguousarray(small[:, :THUMB]),
        channels=channels,
        orientation=orientation,
        depth=str(samples.dtype),
        low=float(finite.min()) if finite.size else 0.0,
        high=float(finite.max()) if finite.size else 0.0,
    )


def difference_hash(grey: np.ndarray) -> int:
    """64 bits: whether each of 8 x 8 cells of an image is brighter than its right neighbour. dHash (N. Krawetz, 2013).

    Args:
        grey: (H, W) uint8.

    Example:
        >>> difference_hash(np.tile(np.arange(255, 0, -1, dtype=np.uint8), (9, 1))) == 2**64 - 1
        True
    """
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)  # (8, 9)
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def near_pairs(hashes: Sequence[int] | np.ndarray, distance: int = 3, most: int = 32) -> list[tuple[int, int]]:
    """Pairs of indices whose 64-bit hashes differ in at most `distance` (up to 3) bits.

    Two such hashes have one of their four quarters in common, so only those with a common quarter are compared, each
    with the next `most` of them: the work grows with the number of hashes, not with that of their pairs.
    """
    hashes = np.asarray(hashes, dtype=np.uint64)
    found: set[tuple[int, int]] = set()
    for quarter in range(4):
        keys = (hashes >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)
        order = np.lexsort((hashes, keys))  # equal hashes come together
        left = np.arange(len(order))
        for step in range(1, most + 1):
            left = left[left + step < len(order)]
            left = left[keys[order[left]] == keys[order[left + step]]]
            if not len(left):
                break
            a, b = order[left], order[left + step]
            close = _num_bits(hashes[a] ^ hashes[b]) <= distance
            found |= {(min(pair), max(pair)) for pair in zip(a[close].tolist(), b[close].tolist(), strict=True)}
    return sorted(found)


def look_alike(a: np.ndarray, b: np.ndarray, limit: float = 4.0) -> bool:
    """Whether two thumbnails differ by at most `limit` grey levels in the mean, apart from brightness."""
    difference = a.astype(np.float32) - b
    return bool(np.abs(difference - difference.mean()).mean() <= limit)


def _num_bits(values: np.ndarray) -> np.ndarray:
    return np.unpackbits(values[:, None].view(np.uint8), axis=1).sum(1)


def _grey(samples: np.ndarray) -> np.ndarray:
    """(H, W) uint8, over the range of the image where it has more than 8 bits."""
    plane = samples if samples.ndim == 2 else samples.mean(2, dtype=np.float32)
    if samples.dtype == np.uint8:
        return np.rint(plane).astype(np.uint8)
    plane = np.nan_to_num(plane.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = plane.min(), plane.max()
    return np.rint((plane - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def _channels(stream: BinaryIO) -> str:
    """What a file stores per pixel, by its header; "" where Pillow does not know it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=_FORMATS) as image:
                mode, bands = image.mode, len(image.getbands())
        except Exception:  # whatever a damaged header makes of Pillow; the samples were read
            return ""
    return {"P": "palette", "1": "grey", _CMYK: _CMYK}.get(mode) or _BANDS.get(bands, f"{bands} channels")
