from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.data.image_file import read_image, read_size
from engine.errors import InputError

Picture = Callable[..., np.ndarray]


def _encode(image_bgr: np.ndarray, file_format: str, mode: str = "RGB", orientation: int | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(image_bgr[:, :, ::-1])).convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(stream, file_format, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_any_mode_becomes_bgr_uint8(tmp_path: Path, picture: Picture, file_format: str, mode: str) -> None:
    data = _encode(picture(20, 30), file_format, mode)
    path = tmp_path / "Gewebe_织物.img"
    path.write_bytes(data)
    image = read_image(path)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    assert image.dtype == np.uint8 and image.shape == (20, 30, 3)
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_16_bit_keeps_the_upper_byte(tmp_path: Path) -> None:
    grey = np.arange(200, dtype=np.uint16).reshape(10, 20)
    cv2.imwrite(str(tmp_path / "a.png"), grey * 256 + 17)
    image = read_image(tmp_path / "a.png")
    assert (image == grey[..., None]).all()


def test_cmyk_jpeg(tmp_path: Path, picture: Picture) -> None:
    data = _encode(picture(32, 48), "JPEG", "CMYK")
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - expected).mean() < 3


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95, -2, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, picture: Picture, file_format: str, keep: float) -> None:
    data = _encode(picture(120, 160), file_format)
    end = int(len(data) * keep) if keep > 0 else int(keep)
    path = tmp_path / "cut.img"
    path.write_bytes(data[:end])
    with pytest.raises(InputError, match="cut.img.*truncated"):
        read_image(path)
    path.write_bytes(data[:end] + bytes(500))  # a download that was preallocated
    with pytest.raises(InputError, match="truncated"):
        read_image(path)
    path.write_bytes(data + b"camera maker's appendix")
    assert read_image(path).shape == (120, 160, 3)


def test_a_thumbnail_does_not_hide_truncation(tmp_path: Path, picture: Picture) -> None:
    thumbnail = _encode(picture(8, 8), "JPEG")
    payload = b"Exif\0\0" + thumbnail
    segment = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    data = _encode(picture(64, 64), "JPEG")
    whole = data[:2] + segment + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such"), (b"", "empty"), (b"<html>not found</html>", "not an image")],
)
def test_no_image_is_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="x.jpg"):
        read_size(path)
    with pytest.raises(InputError, match=str(tmp_path)):
        read_image(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("orientation", "stated", "size"),
    [
        (6, None, (40, 24)),
        (6, (40, 24), (40, 24)),
        (6, (24, 40), (24, 40)),  # annotated on the stored pixels
        (6, (99, 99), (40, 24)),
        (3, (24, 40), (24, 40)),
        (1, (40, 24), (24, 40)),
    ],
)
def test_exif_orientation(
    tmp_path: Path,
    picture: Picture,
    orientation: int,
    stated: tuple[int, int] | None,
    size: tuple[int, int],
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_encode(picture(24, 40), "JPEG", orientation=orientation))
    assert read_image(path, stated).shape[:2] == size
    if stated is None:
        assert read_size(path) == size
