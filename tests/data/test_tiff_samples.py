"""TIFFs that OpenCV refuses, cuts to 8 bits, or takes for other colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from engine.data.image_file import read_image, read_samples, read_size
from engine.data.reading import Reading
from engine.errors import InputError
from tests.data.tiff_file import DEFLATE, tiff_file

Picture = Callable[..., np.ndarray]


def values(dtype: str, channels: int, size: tuple[int, int] = (37, 21)) -> np.ndarray:
    random = np.random.default_rng(channels)
    if dtype.startswith("f"):
        return random.normal(size=(*size, channels)).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, (*size, channels), dtype=dtype, endpoint=True)


def read(folder: Path, data: bytes, channels: int = 3) -> np.ndarray:
    (folder / "a.tif").write_bytes(data)
    return read_samples(folder / "a.tif", reading=Reading((0, 1), channels))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_any_number_of_channels_bit_by_bit(tmp_path: Path, dtype: str, channels: int) -> None:
    image = values(dtype, channels)
    for order in "<>":
        for planar in (1, 2):
            for tile in (0, 16):
                for compression in (1, DEFLATE):
                    data = tiff_file(image, planar=planar, compression=compression, order=order, tile=tile)
                    found = read(tmp_path, data, channels)
                    assert found.dtype == image.dtype and found.shape == image.shape
                    assert (found == image).all(), (order, planar, tile, compression)
    assert read_size(tmp_path / "a.tif") == (37, 21)


@pytest.mark.parametrize(("dtype", "predictor"), [("u1", 2), ("u2", 2), ("i4", 2), ("f2", 3), ("f4", 3), ("f8", 3)])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [0, 16])
def test_differences_are_summed(tmp_path: Path, dtype: str, predictor: int, order: str, tile: int) -> None:
    """Predictors of integers and of floats start anew in each tile, also where a tile is cut by the border."""
    for channels, planar in ((5, 1), (5, 2), (4, 1)):
        image = values(dtype, channels)
        data = tiff_file(
            image, planar=planar, compression=DEFLATE, predictor=predictor, order=order, tile=tile, photometric=1
        )
        assert (read(tmp_path, data, channels) == image).all()


@pytest.mark.parametrize("compression", [1, 5, 8, 32773], ids=["none", "LZW", "deflate", "PackBits"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_what_libtiff_writes(tmp_path: Path, compression: int, dtype: str) -> None:
    """Four channels in strips; OpenCV 5 writes predictors, OpenCV 4 has its own default."""
    image = values(dtype, 4, (70, 50))
    for predictor in (1, 2, 3) if hasattr(cv2, "IMWRITE_TIFF_PREDICTOR") else (0,):
        if (predictor == 3) != (dtype == "f4") and predictor != 1:
            continue
        options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
        if predictor:
            options += [cv2.IMWRITE_TIFF_PREDICTOR, predictor, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 16]
        is_written, data = cv2.imencode(".tif", image, options)
        assert is_written and (read(tmp_path, data.tobytes(), 4) == image).all()


@pytest.mark.parametrize("dtype", ["u4", "f2", "i1", "f8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_types_that_some_opencv_does_not_read(tmp_path: Path, dtype: str, channels: int) -> None:
    image = values(dtype, channels)
    found = read(tmp_path, tiff_file(image, photometric=1 if channels == 1 else 2))
    assert (found.reshape(37, 21, channels) == image[..., ::-1]).all()


def test_the_fourth_channel_is_no_alpha_that_is_multiplied(tmp_path: Path) -> None:
    """As OpenCV does with what a TIFF calls unassociated alpha."""
    image = values("u1", 4)
    data = tiff_file(image, photometric=2, tags={338: [2]})
    assert (read(tmp_path, data, 4) == image[..., [2, 1, 0, 3]]).all()  # RGB there, BGR here


def test_pages_are_channels(tmp_path: Path) -> None:
    image = values("u2", 6)
    pages = [image[..., k] for k in range(6)]
    for order in "<>":
        assert (read(tmp_path, tiff_file(*pages, order=order), 6) == image).all()
    thumbnail = values("u2", 1, (4, 4))
    with pytest.raises(InputError, match="a.tif: has 6 pages of one channel, but INPUT.CHANNELS is 5"):
        read(tmp_path, tiff_file(*pages), 5)
    with pytest.raises(InputError, match="has 6 pages of one channel, but INPUT.CHANNELS is 8"):
        read(tmp_path, tiff_file(*pages), 8)
    with pytest.raises(InputError, match="a.tif: its page 3 has another size or type than its first"):
        read(tmp_path, tiff_file(*pages[:2], thumbnail, *pages[3:]), 6)
    assert (read(tmp_path, tiff_file(*pages)) == pages[0]).all()  # with 3 channels the first page is the image
    stack = [Image.fromarray(page) for page in pages]
    stack[0].save(tmp_path / "b.tif", save_all=True, append_images=stack[1:])
    assert (read_samples(tmp_path / "b.tif", reading=Reading(None, 6)) == image).all()


# ---------------------------------------------------------------- what the samples mean


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_white_as_zero(tmp_path: Path, dtype: str) -> None:
    image = values(dtype, 1)[..., 0]
    expected = np.iinfo(dtype).max - image
    found = read(tmp_path, tiff_file(image, photometric=0))
    assert (found.reshape(37, 21, -1)[..., 0] == expected).all()
    for channels in (1, 2):
        stored = values(dtype, channels)
        found = read(tmp_path, tiff_file(stored, photometric=0), 2 if channels == 2 else 1).reshape(37, 21, -1)
        assert (found[..., 0] == np.iinfo(dtype).max - stored[..., 0]).all()
        assert channels == 1 or (found[..., 1] == stored[..., 1]).all()


@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_white_as_zero_of_what_has_no_highest_value(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InputError, match=r"a.tif: is a TIFF of \w+ whose zero is white; save it with zero as black"):
        read(tmp_path, tiff_file(values(dtype, 1), photometric=0))


def test_grey_with_alpha_of_16_bits_is_not_cut_to_8(tmp_path: Path) -> None:
    image = values("u2", 2)
    assert (read(tmp_path, tiff_file(image, tags={338: [2]})) == image[..., 0]).all()


def test_cmyk_of_16_bits(tmp_path: Path) -> None:
    inks = values("u2", 4)
    cyan, magenta, yellow, black = np.moveaxis(65535 - inks.astype(float), 2, 0) / 65535
    found = read(tmp_path, tiff_file(inks, photometric=5))
    expected = np.dstack([yellow * black, magenta * black, cyan * black]) * 65535
    assert found.dtype == np.uint16 and np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize("bits", [8, 16])
def test_cielab(tmp_path: Path, picture: Picture, bits: int) -> None:
    """Made of sRGB by LittleCMS, whose 8 bits of a and b are coarse."""
    rgb = picture(40, 60)
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.applyTransform(Image.fromarray(rgb), ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    path = tmp_path / "a.tif"
    image.save(path)
    if bits == 16:
        light, a, b = np.moveaxis(np.asarray(image), 2, 0)
        axes = [axis.view(np.int8).astype(np.int16) * 256 for axis in (a, b)]
        stored = np.dstack([light.astype(np.uint16) * 257, *(axis.view(np.uint16) for axis in axes)])
        path.write_bytes(tiff_file(stored, photometric=8))
    found = read_samples(path)[..., ::-1]
    assert found.dtype == f"u{bits // 8}"
    difference = np.abs(found / (1 if bits == 8 else 257) - rgb)
    assert difference.mean() < 1 and np.quantile(difference, 0.99) < 5
    neutral = np.zeros((8, 256, 3), f"u{bits // 8}")
    neutral[..., 0] = np.arange(256) * (1 if bits == 8 else 257)
    path.write_bytes(tiff_file(neutral, photometric=8))
    pixels = read_image(path, reading=Reading((0, 65535)))
    assert np.ptp(pixels, axis=2).max() <= 1 and pixels.min() == 0 and pixels.max() == pytest.approx(255, abs=0.5)


@pytest.mark.parametrize(
    ("data", "channels", "words"),
    [
        (tiff_file(values("u1", 5)), 3, "has 5 channels, but INPUT.CHANNELS is 3; set INPUT.CHANNELS 5"),
        (tiff_file(values("f4", 7)), 1, "has 7 channels, but INPUT.CHANNELS is 1"),
        (tiff_file(values("u2", 5)), 4, "has 5 channels, but INPUT.CHANNELS is 4"),
        (tiff_file(values("u1", 3), photometric=2), 4, "has 3 channels, but INPUT.CHANNELS is 4"),
        (tiff_file(values("u1", 1)), 4, "has 1 channel, but INPUT.CHANNELS is 4"),
        (tiff_file(values("u1", 5), tags={259: [7]}), 5, "compressed by method 7; save it with deflate"),
        (tiff_file(values("u1", 5), tags={317: [9]}), 5, "predictor 9 is not known"),
        (tiff_file(values("u1", 5), tags={258: [12] * 5}), 5, "samples have 12 bits"),
        (tiff_file(values("u1", 5), tags={258: [8, 8, 8, 8, 16]}), 5, "samples have 8/16 bits"),
        (tiff_file(values("u1", 5), planar=2, tags={277: [6]}), 6, "do not have the same number of parts"),
        (tiff_file(values("u1", 5), tags={256: [22]}), 5, "damaged"),
        (tiff_file(values("u1", 5), tags={273: [50_000]}), 5, "truncated"),
        (tiff_file(values("f4", 3), photometric=8), 3, "is a CIELab image of float32; convert it to RGB"),
        (tiff_file(values("f4", 4), photometric=5), 3, "is a CMYK image of float32; convert it to RGB"),
        (
            tiff_file(values("u1", 200, (2, 6000))),
            200,
            "6000 x 2 pixels in 200 channels are more than can be read",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, data: bytes, channels: int, words: str) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        read_image(tmp_path / "a.tif", reading=Reading(None, channels))
    assert str(caught.value).startswith(f"{tmp_path / 'a.tif'}: ") and "\n" not in str(caught.value)


def test_directories_in_a_circle(tmp_path: Path) -> None:
    data = bytearray(tiff_file(values("u1", 1)))
    data[-4:] = data[4:8]
    with pytest.raises(InputError, match="a.tif: its directories lead in a circle"):
        read(tmp_path, bytes(data), 4)
