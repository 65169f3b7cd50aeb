from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.data import image_file
from engine.data.image_file import as_pixels, collected_damage, may_be_deep, read_image, read_size, turned
from engine.data.reading import Reading
from engine.errors import InputError

Picture = Callable[..., np.ndarray]


def encode(image_bgr: np.ndarray, file_format: str, mode: str = "RGB", orientation: int | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(image_bgr[:, :, ::-1])).convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(stream, file_format, exif=exif, lossless=True)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """As OpenCV decodes by itself."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def forget_warnings() -> None:
    image_file._say_ranges_differ.cache_clear()


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        (f, m)
        for f in ("PNG", "BMP", "TIFF", "WEBP")
        for m in ("RGB", "L", "P", "RGBA", "LA", "1")
        if (f, m) != ("BMP", "LA")
    ],
)
def test_any_mode_becomes_bgr_uint8(tmp_path: Path, picture: Picture, file_format: str, mode: str) -> None:
    data = encode(picture(20, 30), file_format, mode)
    path = tmp_path / "Gewebe_织物.img"
    path.write_bytes(data)
    image = read_image(path)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    assert image.dtype == np.uint8 and image.shape == (20, 30, 3) and image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).max() <= 1
    assert (image == decode(data)).all()  # 8-bit images are as they always were, bit for bit


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, picture: Picture, file_format: str) -> None:
    data = encode(picture(32, 48), file_format, "CMYK")
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - expected).mean() < 3


# ---------------------------------------------------------------- more than 8 bits

DEEP = np.linspace(96, 4016, 24 * 40).reshape(24, 40)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_12_of_16_bits(tmp_path: Path, suffix: str, num_channels: int) -> None:
    channels = np.dstack([(DEEP / (k + 1)).astype(np.uint16) for k in range(num_channels)])
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), channels)
    expected = channels[..., :3].astype(float) * (255 / 4095)
    image = read_image(path, reading=Reading((0, 4095)))
    assert image.dtype == np.float32 and image.shape == (24, 40, 3) and (image == expected.astype(np.float32)).all()
    assert may_be_deep(path) and read_size(path) == (24, 40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32, np.int8])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_tiffs_of_other_types(tmp_path: Path, dtype: type, num_channels: int) -> None:
    values = (DEEP / 40 - 50).astype(dtype)  # -47..50
    path = tmp_path / "a.tif"
    uncompressed = [cv2.IMWRITE_TIFF_COMPRESSION, 1]  # OpenCV 4 writes colours of floats as logarithms
    cv2.imwrite(str(path), np.dstack([values] * num_channels), uncompressed)
    expected = ((values.astype(float) + 20) * (255 / 60)).clip(0, 255).astype(np.float32)
    image = read_image(path, reading=Reading((-20, 40)))
    assert image.dtype == np.float32 and (image == expected[..., None]).all()
    assert may_be_deep(path)


def test_without_a_range_each_has_its_own(
    tmp_path: Path, said: pytest.LogCaptureFixture, forget_warnings: None
) -> None:
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), (DEEP / number).astype(np.uint16))
        image = read_image(path)
        assert image.min() == 0 and image.max() == 255 and len(np.unique(image)) > 900
    assert [each.getMessage().split(":")[0] for each in said.records] == [
        "images of more than 8 bits (or floats) without a known range of values"
    ]


def test_an_array_is_scaled_like_a_file(tmp_path: Path) -> None:
    for values in (DEEP.astype(np.uint16), DEEP.astype(np.float32), np.dstack([DEEP.astype(np.uint16)] * 3)):
        path = tmp_path / "a.tif"
        cv2.imwrite(str(path), values)
        assert (as_pixels(values, Reading((50, 5000))) == read_image(path, reading=Reading((50, 5000)))).all()
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (as_pixels(grey, Reading((50, 5000))) == grey[..., None]).all()


@pytest.mark.parametrize(("dtype", "factor"), [(np.float32, 1 / 4095), (np.uint16, 0.02), (np.int32, 100)])
def test_nearly_black_or_white_is_said(
    tmp_path: Path, dtype: type, factor: float, said: pytest.LogCaptureFixture
) -> None:
    values = (DEEP * factor).astype(dtype)
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    with collected_damage() as damage:
        read_image(tmp_path / "a.tif", reading=Reading((0, 4095)))
    assert len(damage) == 1 and damage[0].startswith(f"{tmp_path / 'a.tif'}: its values {values.min():g}..")
    assert damage[0].endswith("become almost one level in the range 0..4095 (INPUT.VALUE_RANGE)")
    as_pixels(values, Reading((0, 4095)))
    assert said.records[-1].getMessage().startswith("an array: its values")


def test_what_is_not_a_number_is_the_lowest_and_counted(tmp_path: Path) -> None:
    values = DEEP.astype(np.float32)
    values[0, :3], values[1, 0], values[1, 1] = np.nan, np.inf, -np.inf
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    with collected_damage() as damage:
        image = read_image(tmp_path / "a.tif", reading=Reading((0, 4095)))
    assert damage == [f"{tmp_path / 'a.tif'}: 3 samples are NaN and count as the lowest value"]
    assert not image[0, :3].any() and (image[1, 0] == 255).all() and not image[1, 1].any()
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((4, 4), np.nan, np.float32))
    with pytest.raises(InputError, match="a.tif: all its samples are NaN"):
        read_image(tmp_path / "a.tif")


# ---------------------------------------------------------------- orientation


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF 2.32 says of tag 274, which names the sides where row 0 and column 0 of the stored image belong."""
    return {
        1: image,
        2: np.fliplr(image),
        3: np.rot90(image, 2),
        4: np.flipud(image),
        5: np.transpose(image, (1, 0, 2)),
        6: np.rot90(image, -1),
        7: np.rot90(np.transpose(image, (1, 0, 2)), 2),
        8: np.rot90(image),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("stated", [None, (24, 40), (40, 24), (99, 99)])
def test_orientation(
    tmp_path: Path, picture: Picture, file_format: str, orientation: int, stated: tuple[int, int] | None
) -> None:
    stored = decode(encode(picture(24, 40), file_format))
    path = tmp_path / "a.img"
    path.write_bytes(encode(picture(24, 40), file_format, orientation=orientation))
    image = read_image(path, stated)
    is_ignored = orientation >= 5 and stated == (24, 40)  # annotated on the stored pixels
    assert (image == (stored if is_ignored else upright(stored, orientation))).all()
    assert read_size(path, stated) == image.shape[:2]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("stated", [None, (24, 40), (40, 24)])
def test_orientation_by_key(
    tmp_path: Path, picture: Picture, file_format: str, orientation: int, stated: tuple[int, int] | None
) -> None:
    """ "apply" and "ignore" do not look at the stated size, as "auto" does."""
    stored = decode(encode(picture(24, 40), file_format))
    path = tmp_path / "a.img"
    path.write_bytes(encode(picture(24, 40), file_format, orientation=orientation))
    for rule, expected in (("apply", upright(stored, orientation)), ("ignore", stored)):
        assert (read_image(path, stated, Reading(orientation=rule)) == expected).all()
        assert read_size(path, stated, rule) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_tiffs(tmp_path: Path, orientation: int) -> None:
    path, exif = tmp_path / "a.tif", Image.Exif()
    exif[274] = orientation
    for values in (DEEP.astype(np.uint16), DEEP.astype(np.float32)):
        Image.fromarray(values).save(path, exif=exif)
        expected = upright(as_pixels(values, Reading((0, 4095))), orientation)
        assert (read_image(path, reading=Reading((0, 4095))) == expected).all()
        assert read_size(path) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_an_orientation_that_does_not_exist(
    tmp_path: Path, picture: Picture, file_format: str, orientation: int
) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(encode(picture(24, 40), file_format, orientation=orientation))
    assert (read_image(path) == decode(encode(picture(24, 40), file_format))).all() and read_size(path) == (24, 40)


@pytest.mark.parametrize("suffix", [".ppm", ".pgm", ".pfm", ".ras"])
def test_formats_without_a_header_of_ours(tmp_path: Path, picture: Picture, suffix: str) -> None:
    image = picture(24, 40)[..., 0] if suffix == ".pgm" else picture(24, 40)
    image = image.astype({".pfm": np.float32, ".pgm": np.uint16}.get(suffix, np.uint8))
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), image)
    assert read_image(path, reading=Reading((0, 255))).shape == (24, 40, 3) and read_size(path) == (24, 40)
    assert may_be_deep(path)


def test_turned_is_undone_by_its_inverse() -> None:
    image = np.arange(24, dtype=np.int16).reshape(2, 4, 3)
    for orientation in range(1, 9):
        inverse = {6: 8, 8: 6}.get(orientation, orientation)
        assert (turned(turned(image, orientation), inverse) == image).all()


# ---------------------------------------------------------------- damaged files

FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.95, -2, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, picture: Picture, file_format: str, keep: float) -> None:
    data = encode(picture(120, 160), file_format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * keep) if keep > 0 else int(keep)])
    with pytest.raises(InputError, match="cut.img.*truncated") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_what_is_appended(tmp_path: Path, picture: Picture, file_format: str) -> None:
    data = encode(picture(120, 160), file_format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[:-20] + bytes(500))  # a download that was preallocated
    with pytest.raises(InputError, match="truncated"):
        read_image(path)
    path.write_bytes(data + b"camera maker's appendix")
    assert read_image(path).shape == (120, 160, 3)


def test_a_thumbnail_does_not_hide_truncation(tmp_path: Path, picture: Picture) -> None:
    thumbnail = encode(picture(8, 8), "JPEG")
    payload = b"Exif\0\0" + thumbnail
    segment = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    data = encode(picture(64, 64), "JPEG")
    whole = data[:2] + segment + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("kind", ["ends early", "garbage", "restart"])
def test_a_damaged_jpeg_is_used_and_named(
    tmp_path: Path, picture: Picture, damaged_jpeg: bytes, kind: str, capfd: pytest.CaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1 if kind == "restart" else 0])[1].tobytes()
    scan = data.index(b"\xff\xda") + 14
    if kind == "ends early":
        data = damaged_jpeg
    elif kind == "garbage":
        data = data[: scan + 500] + b"\x12\x34\x56" * 40 + data[scan + 700 :]
    else:
        data = data[: data.index(b"\xff\xd1")] + b"abcdefgh" + data[data.index(b"\xff\xd1") :]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with collected_damage() as damage:
        assert read_image(path).shape == (48, 64, 3)
    assert len(damage) == 1 and damage[0].startswith(f"{path}: damaged (Corrupt JPEG data: ")
    assert capfd.readouterr().err == ""


def test_damage_is_a_warning_where_nobody_collects_it(
    tmp_path: Path, damaged_jpeg: bytes, said: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jpg").write_bytes(damaged_jpeg)
    read_image(tmp_path / "a.jpg")
    (record,) = said.records
    assert record.levelname == "WARNING" and record.getMessage().endswith("; the image is used as decoded")


def test_threads_tell_their_damaged_files_apart(tmp_path: Path, picture: Picture, damaged_jpeg: bytes) -> None:
    for number in range(40):
        data = damaged_jpeg if number % 5 == 0 else encode(picture(48, 64, number), "JPEG")
        (tmp_path / f"{number}.jpg").write_bytes(data)

    def damage_of(number: int) -> list[str]:
        with collected_damage() as damage:
            read_image(tmp_path / f"{number}.jpg")
        return damage

    with ThreadPoolExecutor(4) as pool:
        damage = list(pool.map(damage_of, range(40)))
    assert [number for number in range(40) if damage[number]] == list(range(0, 40, 5))
    assert all(f"{number}.jpg" in damage[number][0] for number in range(0, 40, 5))


NOISE = """
import ctypes, sys
from engine.data.image_file import read_image
library = ctypes.CDLL(None)
def say(text): library.fputs(text, ctypes.c_void_p.in_dll(library, "stderr")), library.fflush(None)
say(b"before ")
for path in sys.argv[1:]:
    try: read_image(path)
    except Exception as error: print(type(error).__name__)
say(b"after")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names of glibc")
def test_libraries_write_nothing_to_stderr(tmp_path: Path, picture: Picture, damaged_jpeg: bytes) -> None:
    """Not even OpenCV, whose log has another switch in each major version; others may write there again afterwards."""
    exif_tiff = encode(picture(120, 160), "TIFF")
    files = {
        "float.tif": cv2.imencode(".tif", DEEP.astype(np.float32))[1].tobytes(),
        "cut.bmp": encode(picture(120, 160), "BMP")[:9000],
        "unknown.tif": exif_tiff.replace(struct.pack("<HHI", 259, 3, 1), struct.pack("<HHI", 259, 4, 1)),
        "bad.tif": exif_tiff[:8] + bytes(400),
        "bad.png": encode(picture(120, 160), "PNG").replace(b"IDAT", b"IDAX"),
        "web.webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.jpg").write_bytes(damaged_jpeg)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    code = f"import logging; logging.disable()\n{NOISE}"
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "before after"
    assert set(done.stdout.split()) == {"InputError"}


def png(width: int, height: int, checksum: int | None = None) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = zlib.crc32(body) if checksum is None else checksum
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", checksum)
    end = b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return start + bytes(4) + end


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such"),
        (b"", "empty"),
        (b"<html>not found</html>", "is a web page, not an image"),
        (b"\n<svg xmlns=...", "SVG drawing"),
        (b"%PDF-1.7", "PDF document"),
        (b"\0\0\0\x18ftypheic", "HEIC photo; convert it"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"hello", "not an image"),
        (bytes(3000), "not an image"),
        (png(0, 10), "header says 0 x 10"),
        (png(60000, 60000), "60000 x 60000 pixels are more than can be read"),
        (png(20000, 20000), "bytes cannot hold the 20000 x 20000 pixels"),
        (png(20, 20, checksum=1), "wrong checksum"),
        (png(20, 20)[:33] + b"\x7f\xff\xff\xffiCCP" + png(20, 20)[33:], "chunk reaches beyond the end"),
        (b"\xff\xd8" + b"\xff\xd0" * 30000, "header"),
    ],
)
def test_no_image_is_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [read_image, read_size, may_be_deep])
def test_what_is_no_file(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for a writer
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    words = {"folder": "is a folder", "pipe": "is a pipe", "device": "device, not an image", "missing": "no such image"}
    for name, answer in words.items():
        with pytest.raises(InputError, match=f"{name}.jpg: .*{answer}"):
            reader(tmp_path / f"{name}.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        reader(tmp_path / "a\0.jpg")


def _valid_files() -> list[bytes]:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    files = [encode(image, file_format, orientation=6) for file_format in ("JPEG", "PNG", "TIFF", "WEBP")]
    files += [encode(image, "BMP"), encode(image, "GIF"), encode(image, "PNG", "P"), encode(image, "TIFF", "1")]
    deep = image.astype(np.uint16) * 16
    return [*files, *(cv2.imencode(s, v)[1].tobytes() for s in (".png", ".tif") for v in (deep, deep[..., 0]))]


@settings(max_examples=1000)
@given(
    file=st.sampled_from(_valid_files()),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    in_header=st.booleans(),
)
def test_any_bytes_give_an_image_or_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    file: bytes,
    changes: list[tuple[float, int]],
    keep: float,
    in_header: bool,
) -> None:
    data = bytearray(file)
    for where, value in changes:
        data[int(where * (min(len(data), 200 if in_header else len(data)) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.img"
    path.write_bytes(data[: int(keep * len(data))])
    with collected_damage() as damage:
        try:
            image = read_image(path, reading=Reading((0, 4095)))
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return
    assert image.dtype in (np.uint8, np.float32) and image.shape == (*read_size(path), 3)
    assert image.min() >= 0 and image.max() <= 255
    assert all("\n" not in line for line in damage)
