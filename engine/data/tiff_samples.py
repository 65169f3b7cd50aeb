"""Samples of TIFFs that OpenCV refuses or changes: any number of channels, pages, white as zero, CMYK and CIELab.

OpenCV (libtiff) only unpacks here: it is given the strips or tiles of the file below a directory of ours, which says
that they hold grey bytes, as many per row as the row has. Byte order, predictors and what the samples mean follow here.

Source: TIFF 6.0 (1992), and Adobe's technical note 3 for predictors of floats. Shapes: H W, N channels.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from engine.data.image_header import (
    BITS,
    CHANNELS,
    HEIGHT,
    PHOTOMETRIC,
    SAMPLE_FORMAT,
    STRIPS,
    TILES,
    WIDTH,
    Directory,
    read_directories,
)

COMPRESSION, FILL_ORDER, ROWS_PER_STRIP, PLANAR, PREDICTOR = 259, 266, 278, 284, 317
TILE_WIDTH, TILE_HEIGHT, SUBFILE = 322, 323, 254
TAGS = (WIDTH, HEIGHT, BITS, SAMPLE_FORMAT, *STRIPS, *TILES, COMPRESSION, PHOTOMETRIC, FILL_ORDER, CHANNELS)
TAGS += (ROWS_PER_STRIP, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, SUBFILE)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK, CIELAB = MEANINGS = 0, 1, 2, 5, 8
_LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)  # none, LZW, deflate twice, PackBits, LZMA, Zstandard
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_SHORT, _LONG = 3, 4  # types
_SHORTS = (BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, CHANNELS)
_MOST_SIDE, _MOST_BYTES = 1 << 20, 1 << 30
"""OpenCV's limits of sides and pixels; here they count bytes."""
_D50 = np.array([0.9642, 1.0, 0.8249])
_SRGB_OF_D50 = np.array(  # Lindbloom: XYZ of D50 to linear sRGB, with Bradford's adaptation
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


class UnreadableTiffError(ValueError):
    """Why the samples cannot be read, to be put behind the name of the file."""


@dataclass(frozen=True)
class Page:
    """One image of a TIFF.

    Attributes:
        size: (height, width).
        num_channels: N.
        photometric: what the samples mean, see TIFF 6.0; -1 if the file does not say.
        order: of the bytes in the file, "<" or ">".
        directory: all tags.
    """

    size: tuple[int, int]
    num_channels: int
    photometric: int
    order: str
    directory: Directory

    def tag(self, number: int, default: int) -> int:
        return self.directory.get(number, (default,))[0]

    @property
    def dtype(self) -> np.dtype:
        """Of the samples, in the byte order of the file.

        Raises:
            UnreadableTiffError: they are not whole bytes, or differ.
        """
        bits, kinds = set(self.directory.get(BITS, (1,))), set(self.directory.get(SAMPLE_FORMAT, (1,)))
        bit, kind = (*bits, *kinds) if len(bits) == len(kinds) == 1 else (0, 0)
        if bit not in (8, 16, 32, 64) or kind not in _KINDS or (kind == 3 and bit == 8):
            raise UnreadableTiffError(
                f"its samples have {'/'.join(map(str, sorted(bits)))} bits (format {'/'.join(map(str, sorted(kinds)))})"
                "; save it with samples of 8, 16 or 32 bits, all of one kind"
            )
        return np.dtype(f"{self.order}{_KINDS[kind]}{bit // 8}")


def read_pages(data: bytes, most: int) -> list[Page]:
    """At most `most` pages, without thumbnails and masks.

    Raises:
        BrokenHeaderError: a directory is damaged.
    """
    order = "<" if data.startswith(b"II") else ">"
    pages: list[Page] = []
    for directory in read_directories(io.BytesIO(data), TAGS, most):
        if pages and directory.get(SUBFILE, (0,))[0] & 5:  # a smaller copy, a mask
            continue
        size = directory.get(HEIGHT, (0,))[0], directory.get(WIDTH, (0,))[0]
        meaning = directory.get(PHOTOMETRIC, (-1,))[0]
        pages.append(Page(size, directory.get(CHANNELS, (1,))[0], meaning, order, directory))
    return pages


def stored_samples(data: bytes, page: Page) -> np.ndarray:
    """The samples (H, W, N) of a page as stored, in the byte order of this machine.

    Raises:
        UnreadableTiffError: samples or a compression that are not read here, or the data are damaged.
    """
    compression = page.tag(COMPRESSION, 1)
    if compression not in _LOSSLESS:
        raise UnreadableTiffError(
            f"its channels are compressed by method {compression}; save it with deflate, LZW or without compression"
        )
    tags = TILES if page.directory.get(TILES[0]) else STRIPS
    offsets, counts = page.directory.get(tags[0]), page.directory.get(tags[1])
    if not offsets or len(offsets) != len(counts):
        raise UnreadableTiffError("damaged: it does not say where its pixels are; replace the file")
    if any(start + count > len(data) for start, count in zip(offsets, counts, strict=True)):
        raise UnreadableTiffError("the image file is truncated; copy or download it again")
    pieces = [data[start : start + count] for start, count in zip(offsets, counts, strict=True)]
    if page.tag(PLANAR, 1) != 2 or page.num_channels == 1:
        return _unpacked(pieces, page, page.num_channels)
    per_plane, rest = divmod(len(pieces), page.num_channels)
    if rest or not per_plane:
        raise UnreadableTiffError("damaged: its channels do not have the same number of parts; replace the file")
    planes = [pieces[start : start + per_plane] for start in range(0, len(pieces), per_plane)]
    return np.concatenate([_unpacked(plane, page, 1) for plane in planes], axis=2)


def _unpacked(pieces: list[bytes], page: Page, channels: int) -> np.ndarray:
    """(H, W, channels) of strips or tiles that hold `channels` interleaved. Tiles are unpacked one below the other."""
    (height, width), is_tiled = page.size, bool(page.directory.get(TILES[0]))
    high, wide = (page.tag(TILE_HEIGHT, 0), page.tag(TILE_WIDTH, 0)) if is_tiled else (height, width)
    down, across = -(-height // max(high, 1)), -(-width // max(wide, 1))
    if min(high, wide) < 1 or (is_tiled and len(pieces) != down * across):
        raise UnreadableTiffError("damaged: its tiles do not cover it; replace the file")
    rows = high if is_tiled else min(page.tag(ROWS_PER_STRIP, height), height)
    size = down * across * high, wide * channels * page.dtype.itemsize
    if max(size) > _MOST_SIDE or size[0] * size[1] > _MOST_BYTES:
        raise UnreadableTiffError(
            f"{width} x {height} pixels in {channels} channels are more than can be read; cut it into smaller images"
        )
    file = _grey_file(pieces, page, size, rows)
    try:
        octets = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)  # `size`
    except (cv2.error, MemoryError):
        octets = None
    if octets is None or octets.shape != size or octets.dtype != np.uint8:
        raise UnreadableTiffError("damaged, or packed in a way that OpenCV cannot read; replace the file")
    samples = _without_predictor(octets, page, channels).reshape(down, across, high, wide, channels)
    return samples.swapaxes(1, 2).reshape(down * high, across * wide, channels)[:height, :width]


def _without_predictor(octets: np.ndarray, page: Page, channels: int) -> np.ndarray:
    """Samples (H, W, channels) in the byte order of this machine of unpacked rows of bytes."""
    dtype, predictor, height = page.dtype, page.tag(PREDICTOR, 1), len(octets)
    native = dtype.newbyteorder("=")
    if predictor == 3 and dtype.kind == "f":  # differences of the rows' bytes, of which all highest ones come first
        sums = np.cumsum(octets.reshape(height, -1, channels), axis=1, dtype=np.uint8)
        planes = sums.reshape(height, dtype.itemsize, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(planes).view(dtype.newbyteorder(">")).reshape(height, -1, channels).astype(native)
    samples = octets.view(dtype).reshape(height, -1, channels).astype(native)
    if predictor == 2:
        words = samples.view(f"u{dtype.itemsize}")
        np.cumsum(words, axis=1, dtype=words.dtype, out=words)
    elif predictor != 1:
        raise UnreadableTiffError(f"its predictor {predictor} is not known; save it without")
    return samples


def _grey_file(pieces: list[bytes], page: Page, size: tuple[int, int], rows: int) -> bytes:
    """A grey TIFF of 8 bits and `size`, whose strips of `rows` are the pieces of a page."""
    offsets, at = [], 8
    for piece in pieces:
        offsets.append(at)
        at += len(piece)
    tags = {HEIGHT: [size[0]], WIDTH: [size[1]], BITS: [8], PHOTOMETRIC: [1], CHANNELS: [1], ROWS_PER_STRIP: [rows]}
    tags |= {COMPRESSION: [page.tag(COMPRESSION, 1)], FILL_ORDER: [page.tag(FILL_ORDER, 1)]}
    tags |= {STRIPS[0]: offsets, STRIPS[1]: [len(piece) for piece in pieces]}
    directory_at = at + at % 2
    lists_at = directory_at + 2 + 12 * len(tags) + 4
    entries, lists = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, lists = struct.pack("<I", lists_at + len(lists)), lists + packed
        entries += struct.pack("<HHI", tag, _SHORT if tag in _SHORTS else _LONG, len(values)) + packed
    start = b"II*\0" + struct.pack("<I", directory_at)
    body = b"".join(pieces) + bytes(at % 2)
    return start + body + struct.pack("<H", len(tags)) + entries + bytes(4) + lists


def as_shown(samples: np.ndarray, photometric: int) -> np.ndarray:
    """Stored samples (H, W, N) with black as zero and colours as BGR; channels without a meaning stay as they are.

    White as zero is turned around, CMYK and CIELab become BGR of the same depth, RGB (perhaps with a fourth channel)
    becomes BGR.

    Raises:
        UnreadableTiffError: white as zero, CMYK or CIELab in a type for which the specification has no meaning.
    """
    channels, dtype = samples.shape[2], samples.dtype
    if photometric == WHITE_IS_ZERO:  # of the first channel; what follows is no grey
        return np.concatenate([inverted(samples[..., :1]), samples[..., 1:]], axis=2)
    if photometric == CMYK and channels == 4:
        return _bgr_of_cmyk(samples)
    if photometric == CIELAB and channels == 3:
        if dtype not in (np.uint8, np.uint16, np.int8, np.int16):
            raise UnreadableTiffError(f"is a CIELab image of {dtype}; convert it to RGB")
        return _bgr_of_lab(samples)
    if photometric == RGB and channels in (3, 4):
        return samples[..., [2, 1, 0, 3][:channels]]
    return samples


def inverted(samples: np.ndarray) -> np.ndarray:
    """Unsigned samples of an image whose zero is white, with zero as black.

    Raises:
        UnreadableTiffError: floats and signed integers have no highest value.
    """
    if samples.dtype.kind != "u":
        raise UnreadableTiffError(
            f"is a TIFF of {samples.dtype} whose zero is white; save it with zero as black (photometric 1)"
        )
    return np.iinfo(samples.dtype).max - samples


def _bgr_of_cmyk(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind != "u":
        raise UnreadableTiffError(f"is a CMYK image of {samples.dtype}; convert it to RGB")
    most = float(np.iinfo(samples.dtype).max)
    light = most - samples.astype(np.float64)
    return np.rint(light[..., 2::-1] * light[..., 3:] / most).astype(samples.dtype)


def _bgr_of_lab(samples: np.ndarray) -> np.ndarray:
    """CIELab under D50 to sRGB, of the same number of bits; colours outside sRGB are clipped."""
    bits = samples.dtype.itemsize * 8
    most = (1 << bits) - 1
    lightness = samples[..., 0].view(f"u{bits // 8}").astype(np.float64) * (100 / most)
    a, b = np.moveaxis(samples[..., 1:].view(f"i{bits // 8}").astype(np.float64), 2, 0) / (1 << (bits - 8))
    y = (lightness + 16) / 116
    roots = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * (3 * (6 / 29) ** 2)) * _D50  # (H, W, 3)
    linear = (xyz @ _SRGB_OF_D50.T).clip(0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(rgb[..., ::-1] * most).astype(f"u{bits // 8}")
