"""Headers of image files, read by ourselves: what libraries make of sizes and orientations differs between versions.

JPEG, PNG, BMP, TIFF (also BigTIFF), WebP, GIF and NumPy's arrays. Sizes are (height, width).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from engine.data import array_file

ORIENTATION, WIDTH, HEIGHT, BITS, SAMPLE_FORMAT, PHOTOMETRIC, CHANNELS, EXTRA = 274, 256, 257, 258, 339, 262, 277, 338
STRIPS, TILES = (273, 279), (324, 325)  # tags of offsets and of byte counts
_UNSIGNED, _UNASSOCIATED = 1, 2  # sample format, alpha
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF types of the tags above
_SIZES_OF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_MOST_ENTRIES = 4096
_MOST_VALUES = 1 << 22
_MOST_SEGMENTS = 10_000
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # the markers among C0..CF that do not start a frame
_FOREIGN = (
    (b"%pdf", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file (perhaps SVG)"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself (git lfs pull)"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


class BrokenHeaderError(ValueError):
    """The file ends within its header, or the header contradicts itself."""


@dataclass(frozen=True)
class Header:
    """What a file says of its image.

    Attributes:
        kind: "JPEG", "PNG", "BMP", "TIFF", "WebP", "GIF" or "NPY".
        size: (height, width) as stored.
        orientation: 1..8 as in EXIF; 1 where it is missing or nonsense.
        is_deep: the samples are not unsigned integers of up to 8 bits.
        least_bytes: a shorter file is truncated; 0 where the header does not tell.
        pixels_at: where the pixels of a JPEG start, behind the headers.
        channels: of a TIFF, PNG or array, as stored; 0 for a palette and for other formats, where decoding shows it.
        photometric: of a TIFF, what its samples mean; -1 if it does not say.
        has_alpha: of a TIFF, its colours are not yet multiplied by the alpha that they have.
        orientation_at: where a TIFF holds its orientation, and the bytes that mean 1.
    """

    kind: str
    size: tuple[int, int]
    orientation: int = 1
    is_deep: bool = False
    least_bytes: int = 0
    pixels_at: int = 0
    channels: int = 0
    photometric: int = -1
    has_alpha: bool = False
    orientation_at: tuple[int, bytes] | None = None


def read_header(stream: BinaryIO) -> Header | None:
    """The header of the image in `stream`; None for a format that is not known here.

    Raises:
        BrokenHeaderError: the header is damaged or incomplete.
    """
    start = _read(stream, 0, 16, exact=False)
    if start.startswith(b"\xff\xd8"):
        header = _jpeg(stream)
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _png(stream)
    elif start.startswith(b"BM"):
        header = _bmp(stream)
    elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        header = _tiff(stream)
    elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        header = _webp(stream)
    elif start.startswith((b"GIF87a", b"GIF89a")):
        header = _gif(stream)
    elif start.startswith(array_file.MAGIC):
        header = _array(stream)
    else:
        return None
    if min(header.size) < 1:
        raise BrokenHeaderError(f"its header says {header.size[1]} x {header.size[0]} pixels")
    return header


def foreign_kind(start: bytes) -> str | None:
    """What a file is that is no image we read, by its first bytes.

    Example:
        >>> foreign_kind(b"%PDF-1.7"), foreign_kind(b"\\xff\\xd8")
        ('a PDF document', None)
    """
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "a HEIC photo; convert it to JPEG or PNG"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((what for magic, what in _FOREIGN if text.startswith(magic)), None)


def _read(stream: BinaryIO, offset: int, count: int, exact: bool = True) -> bytes:
    stream.seek(offset)
    data = stream.read(count)
    if exact and len(data) < count:
        raise BrokenHeaderError("the file ends within its header")
    return data


def _unpack(stream: BinaryIO, offset: int, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _read(stream, offset, struct.calcsize(form)))


# ---------------------------------------------------------------- TIFF and EXIF


@dataclass(frozen=True)
class Directory:
    """A directory of a TIFF.

    Attributes:
        values: tag -> (integers, offset of the first, struct format of one).
        next_at: where the next directory starts; 0 if there is none.
    """

    values: dict[int, tuple[tuple[int, ...], int, str]]
    next_at: int

    def get(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        return self.values[tag][0] if tag in self.values and self.values[tag][0] else default


def read_directories(stream: BinaryIO, tags: tuple[int, ...], most: int, base: int = 0) -> Iterator[Directory]:
    """The integers of `tags` in at most `most` directories of the TIFF that starts at `base`, where EXIF data do too.

    Raises:
        BrokenHeaderError: a directory is damaged, or they lead in a circle.
    """
    mark = _read(stream, base, 4)
    order = "<" if mark.startswith(b"II") else ">"
    is_big = b"+" in mark[2:]
    if mark[:2] not in (b"II", b"MM") or not (is_big or b"*" in mark[2:]):
        raise BrokenHeaderError("its EXIF data are damaged")
    position, seen = _unpack(stream, base + (8 if is_big else 4), order + ("Q" if is_big else "I"))[0], set()
    while position not in seen and len(seen) < most:
        seen.add(position)
        directory = _directory(stream, base, base + position, order, tags)
        yield directory
        position = directory.next_at
        if not position:
            return
    if position in seen:
        raise BrokenHeaderError("its directories lead in a circle")


def _directory(stream: BinaryIO, base: int, position: int, order: str, tags: tuple[int, ...]) -> Directory:
    is_big = b"+" in _read(stream, base, 4)[2:]
    (count,) = _unpack(stream, position, order + ("Q" if is_big else "H"))
    position, step, inline = position + (8 if is_big else 2), 20 if is_big else 12, 8 if is_big else 4
    if not 0 < count <= _MOST_ENTRIES:
        raise BrokenHeaderError(f"its directory has {count} entries")
    values = {}
    for entry in range(position, position + count * step, step):
        tag, kind, number = _unpack(stream, entry, order + ("HHQ" if is_big else "HHI"))
        if tag not in tags or tag in values or kind not in _INTEGERS or not 0 < number <= _MOST_VALUES:
            continue
        at = entry + step - inline
        if number * _SIZES_OF_TYPES[kind] > inline:
            at = base + _unpack(stream, at, order + ("Q" if is_big else "I"))[0]
        values[tag] = _unpack(stream, at, f"{order}{number}{_INTEGERS[kind]}"), at, order + _INTEGERS[kind]
    end = _read(stream, position + count * step, inline, exact=False)  # some writers end the file before it
    next_at = int.from_bytes(end, "little" if order == "<" else "big") if len(end) == inline else 0
    return Directory(values, next_at)


def _first_directory(stream: BinaryIO, base: int, tags: tuple[int, ...]) -> Directory:
    return next(read_directories(stream, tags, 1, base))


def _tiff(stream: BinaryIO) -> Header:
    tags = (ORIENTATION, WIDTH, HEIGHT, BITS, SAMPLE_FORMAT, PHOTOMETRIC, CHANNELS, EXTRA, *STRIPS, *TILES)
    found = _first_directory(stream, 0, tags)
    if not (found.get(WIDTH) and found.get(HEIGHT)):
        raise BrokenHeaderError("its directory has no size")
    least_bytes = 0
    for offsets, counts in (STRIPS, TILES):
        ends = (offset + count for offset, count in zip(found.get(offsets), found.get(counts), strict=False))
        least_bytes = max([least_bytes, *ends])
    is_unsigned = set(found.get(SAMPLE_FORMAT, (_UNSIGNED,))) == {_UNSIGNED}
    at = None
    if ORIENTATION in found.values and found.get(ORIENTATION)[0] != 1:
        _, offset, form = found.values[ORIENTATION]
        at = offset, struct.pack(form, 1)
    return Header(
        "TIFF",
        (found.get(HEIGHT)[0], found.get(WIDTH)[0]),
        orientation=_valid(found.get(ORIENTATION, (1,))[0]),
        is_deep=max(found.get(BITS, (1,))) > 8 or not is_unsigned,
        least_bytes=least_bytes,
        channels=found.get(CHANNELS, (1,))[0],
        photometric=found.get(PHOTOMETRIC, (-1,))[0],
        has_alpha=_UNASSOCIATED in found.get(EXTRA),
        orientation_at=at,
    )


def _exif_orientation(stream: BinaryIO, position: int) -> int:
    """The orientation in EXIF data; damaged ones say nothing, which is no reason to refuse the image."""
    if _read(stream, position, 6, exact=False) == b"Exif\0\0":
        position += 6
    try:
        return _valid(_first_directory(stream, position, (ORIENTATION,)).get(ORIENTATION, (1,))[0])
    except BrokenHeaderError:
        return 1


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


# ---------------------------------------------------------------- the other formats


def _jpeg(stream: BinaryIO) -> Header:
    size, orientation = None, None
    for marker, position in _jpeg_segments(stream):
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES and size is None:
            size = _unpack(stream, position + 3, ">HH")
        elif marker == 0xE1 and orientation is None and _read(stream, position + 2, 6, exact=False) == b"Exif\0\0":
            orientation = _exif_orientation(stream, position + 2)
        elif marker == 0xDA and size is not None:
            return Header("JPEG", size, orientation or 1, pixels_at=position)
        elif marker == 0xDA:
            break
    raise BrokenHeaderError("it has no frame before its pixels")


def _jpeg_segments(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """(marker, offset of its length) of each segment up to the first scan; other bytes between them are skipped."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        block = _read(stream, position, 4096, exact=False)
        start = block.find(b"\xff")
        if not block or start < 0:
            if len(block) < 4096:
                raise BrokenHeaderError("the file ends within its header")
            position += len(block)
            continue
        position += start + 1
        (marker,) = _read(stream, position, 1)
        if marker == 0xFF:  # a fill byte
            continue
        position += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stand alone
            continue
        if marker == 0xD9:
            raise BrokenHeaderError("it ends before its pixels")
        yield marker, position
        position += max(_unpack(stream, position, ">H")[0], 2)
    raise BrokenHeaderError("its header does not end")


def _png(stream: BinaryIO) -> Header:
    name, width, height, bits, colour = _unpack(stream, 12, ">4sIIBB")
    if name != b"IHDR":
        raise BrokenHeaderError("its first chunk is not IHDR")
    chunk, (checksum,) = _read(stream, 12, 17), _unpack(stream, 29, ">I")
    if zlib.crc32(chunk) != checksum:  # before a forged size costs memory and seconds
        raise BrokenHeaderError("its first chunk has a wrong checksum")
    orientation, position, end = 1, 33, stream.seek(0, 2)
    while len(start := _read(stream, position, 8, exact=False)) == 8 and not start.endswith(b"IEND"):
        if start.endswith(b"eXIf"):
            orientation = _exif_orientation(stream, position + 8)
        position += 12 + int.from_bytes(start[:4], "big")
        if position > end:  # decoders may take the memory that the chunk asks for
            raise BrokenHeaderError("a chunk reaches beyond the end of the file")
    return Header("PNG", (height, width), orientation, is_deep=bits > 8, channels=_PNG_CHANNELS.get(colour, 0))


def _bmp(stream: BinaryIO) -> Header:
    pixels_at, length = _unpack(stream, 10, "<II")
    if length == 12:  # OS/2
        width, height, _, bits = _unpack(stream, 18, "<HHHH")
        is_packed = False
    else:
        width, height, _, bits, compression = _unpack(stream, 18, "<iiHHI")
        is_packed = compression not in (0, 3, 6)
    row = (width * bits + 31) // 32 * 4
    least_bytes = 0 if is_packed else pixels_at + row * abs(height)  # negative: the rows go down
    return Header("BMP", (abs(height), width), least_bytes=least_bytes)


def _webp(stream: BinaryIO) -> Header:
    (length,) = _unpack(stream, 4, "<I")
    size, orientation, position = None, 1, 12
    while position < 8 + length and len(start := _read(stream, position, 8, exact=False)) == 8:
        name, chunk = struct.unpack("<4sI", start)
        at = position + 8
        if name == b"VP8X":
            word = int.from_bytes(_read(stream, at + 4, 6), "little")
            size = (word >> 24) + 1, (word & 0xFFFFFF) + 1
        elif name == b"VP8 " and size is None:
            width, height = _unpack(stream, at + 6, "<HH")
            size = height & 0x3FFF, width & 0x3FFF
        elif name == b"VP8L" and size is None:
            (word,) = _unpack(stream, at + 1, "<I")
            size = (word >> 14 & 0x3FFF) + 1, (word & 0x3FFF) + 1
        elif name == b"EXIF":
            orientation = _exif_orientation(stream, at)
        position = at + chunk + chunk % 2
    if size is None:
        raise BrokenHeaderError("it has no frame")
    return Header("WebP", size, orientation, least_bytes=8 + length)


def _gif(stream: BinaryIO) -> Header:
    """Up to the end of the first frame, which is the one that is read."""
    width, height, flags = _unpack(stream, 6, "<HHB")
    position = 13 + _palette_bytes(flags)
    while True:
        (introducer,) = _read(stream, position, 1)
        if introducer == 0x2C:
            (flags,) = _read(stream, position + 9, 1)
            end = _end_of_blocks(stream, position + 11 + _palette_bytes(flags))
            return Header("GIF", (height, width), least_bytes=end + 1)  # one for the trailer or the next frame
        if introducer != 0x21:
            raise BrokenHeaderError("it has no frame")
        position = _end_of_blocks(stream, position + 2)


def _array(stream: BinaryIO) -> Header:
    stream.seek(0)
    try:
        layout = array_file.read_layout(stream)
    except ValueError as error:
        raise BrokenHeaderError(str(error)) from None
    channels = layout.shape[2] if len(layout.shape) == 3 else 1
    least_bytes = layout.starts_at + layout.num_bytes
    is_deep = layout.dtype != "u1"
    return Header("NPY", layout.shape[:2], is_deep=is_deep, least_bytes=least_bytes, channels=channels)


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _end_of_blocks(stream: BinaryIO, position: int) -> int:
    while length := _read(stream, position, 1)[0]:
        position += 1 + length
    return position + 1
