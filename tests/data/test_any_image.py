from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.any_image import any_image
from engine.data.image_file import read_image
from engine.data.reading import Reading
from engine.errors import InputError

RED = (0, 0, 255)  # as BGR


@pytest.fixture
def picture() -> np.ndarray:
    """(4, 6, 3), BGR: no two pixels and no two channels alike."""
    return np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_every_form_of_one_image_is_the_same_pixels(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture))
    rgb = picture[..., ::-1]
    forms = [picture, path, str(path), encoded(picture), bytearray(encoded(picture)), memoryview(encoded(picture))]
    forms += [Image.open(path), Image.fromarray(np.ascontiguousarray(rgb)), torch.tensor(picture).permute(2, 0, 1)]
    for form in forms:
        pixels = any_image(form)
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and np.array_equal(pixels, picture)
    for form in (rgb, torch.tensor(rgb.copy()).permute(2, 0, 1), *forms[1:-1]):  # the others know their colours
        assert np.array_equal(any_image(form, color="rgb"), picture)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"])
def test_modes_of_pillow(mode: str) -> None:
    """Alpha is dropped: what is half transparent keeps its colour."""
    base = Image.new("RGBA", (3, 2), (255, 0, 0, 128))
    if mode in ("1", "L", "LA", "La"):
        image = Image.new("LA", (3, 2), (255, 128)).convert("LA" if mode in ("LA", "La") else "L")
        image, expected = image.convert(mode), (255, 255, 255)
    elif mode in ("RGBA", "RGBa"):
        image, expected = base.convert(mode), RED
    else:
        image, expected = base.convert("RGB").convert("P" if mode == "PA" else mode).convert(mode), RED
    assert image.mode == mode
    pixels = any_image(image).astype(int)
    assert pixels.shape == (2, 3, 3) and np.abs(pixels - expected).max() <= 2


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_deep_modes_of_pillow_are_scaled_like_files(mode: str, tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 24).reshape(4, 6)
    types = {"I;16": np.uint16, "I;16B": ">u2", "I": np.int32, "F": np.float32}
    values = values.astype(types[mode])
    image = Image.frombytes(mode, (6, 4), values.tobytes())
    cv2.imwrite(
        str(tmp_path / "a.tif"), values.astype(values.dtype.newbyteorder("=")), [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    )
    reading = Reading((0.0, 4095.0))
    pixels = any_image(image, reading)
    assert pixels.dtype == np.float32 and pixels.max() == 255
    assert np.array_equal(pixels, read_image(tmp_path / "a.tif", reading=reading))


def test_a_16_bit_png_as_bytes_pillow_and_array(tmp_path: Path) -> None:
    values = (np.arange(24, dtype=np.uint16) * 2000).reshape(4, 6)
    data, reading = encoded(values), Reading((0.0, 65535.0))
    forms = [values, data, Image.open(io.BytesIO(data)), torch.tensor(values.astype(np.int32))[None]]
    for form in forms:
        pixels = any_image(form, reading)
        assert pixels.dtype == np.float32 and np.allclose(pixels[..., 0], values * (255 / 65535), atol=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_the_orientation_that_exif_states(orientation: int, suffix: str) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.fromarray(stored).save(file, suffix, exif=exif)
    upright = any_image(Image.open(io.BytesIO(file.getvalue())))
    assert np.array_equal(upright, any_image(file.getvalue()))
    assert upright.shape[:2] == ((4, 6) if orientation < 5 else (6, 4))
    if suffix == "png":
        as_stored = any_image(Image.open(file), Reading(orientation="ignore"))
        assert np.array_equal(as_stored[..., 0], stored)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_other_types(dtype: torch.dtype) -> None:
    values = torch.tensor([[0, 128], [64, 256]]).to(dtype)
    pixels = any_image(values.requires_grad_(dtype.is_floating_point), Reading((0.0, 256.0)))
    assert pixels[..., 1].tolist() == [[0.0, 127.5], [63.75, 255.0]]


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 6, 1)), (4, (4, 6, 4))])
def test_other_numbers_of_channels(channels: int, shape: tuple[int, ...]) -> None:
    image = np.arange(96, dtype=np.uint8).reshape(4, 6, 4)  # BGRA
    reading = Reading(channels=channels)
    given = image if channels == 4 else image[..., :3]
    forms = [encoded(given), torch.tensor(given).permute(2, 0, 1), Image.open(io.BytesIO(encoded(given)))]
    pixels = any_image(given, reading)
    assert pixels.shape == shape and all(np.array_equal(any_image(form, reading), pixels) for form in forms)
    rgb = given[..., [2, 1, 0, 3][: given.shape[2]]]
    assert np.array_equal(any_image(rgb, reading, color="rgb"), pixels)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "not NoneType None"),
        (7, "not int 7"),
        ({"image": 1}, "not dict"),
        ([[1, 2]], "not list"),
        (iter([1, 2]), "give several images as a list"),
        (np.zeros(20, np.uint8), r"not an array of uint8 and shape \(20,\)"),
        (np.zeros((0, 20, 3), np.uint8), r"shape \(0, 20, 3\)"),
        (np.zeros((20, 20, 3), bool), "not an array of bool"),
        (np.zeros((2, 20, 20, 3), np.uint8), "give several images as a list"),
        (np.array(["a"]), "not an array of <U1"),
        (torch.zeros(20, 20, 3), r"not a tensor of torch.float32 and shape \(20, 20, 3\)"),
        (torch.zeros(1, 3, 4, 4), "give several images as a list"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), "not a tensor of torch.bool"),
        (torch.zeros(3, 4, 4, device="meta"), "not a tensor"),
        (torch.zeros(3, 4, 4).to_sparse(), "not a tensor"),
        (Image.new("RGB", (0, 4)), "0 x 4 pixels"),
    ],
)
def test_what_is_no_image(image: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        any_image(image)
    assert str(error.value).count("\n") == 0 and "an image must be" in str(error.value)


def test_an_unknown_order_of_colours(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match='color must be "bgr" or "rgb"'):
        any_image(picture, color="BGR")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"%PDF-1.7 and so on", "a PDF document"),
        (lambda data: b"not an image at all", "not an image"),
    ],
)
def test_encoded_images_are_checked_like_files(picture: np.ndarray, spoil: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        any_image(spoil(encoded(picture)))
    assert str(error.value).startswith("the encoded image: ")


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encoded(np.zeros((8, 8), np.uint8)))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(InputError, match="cannot hold the 30000 x 30000 pixels"):
        any_image(bytes(data))


def test_truncated_images_of_pillow() -> None:
    rng = np.random.default_rng(0)
    data = encoded(rng.integers(0, 256, (64, 64, 3), np.uint8), ".jpg")
    with pytest.raises(InputError, match="damaged"):
        any_image(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_neither_torch_nor_pillow_is_imported() -> None:
    code = "import sys, engine.data.any_image; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
