"""How many channels an image has, and how many it becomes (`INPUT.CHANNELS`)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import transforms
from engine.data.image_file import as_pixels, read_image, read_size
from engine.data.reading import Reading
from engine.errors import InputError
from tests.data.tiff_file import tiff_file

Picture = Callable[..., np.ndarray]
SIZE = (24, 40)


def saved(image: Image.Image, file_format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, lossless=True)
    return stream.getvalue()


def grey_of(bgr: np.ndarray) -> np.ndarray:
    """BT.601."""
    return bgr @ np.array([0.114, 0.587, 0.299])


FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP"]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("channels", [1, 3, 4, 2, 5])
def test_any_file_becomes_the_channels_or_names_both(
    tmp_path: Path, picture: Picture, file_format: str, mode: str, channels: int
) -> None:
    rgb = Image.fromarray(picture(*SIZE))
    image = rgb.convert("L").convert("I").convert(mode) if mode == "I;16" else rgb.convert(mode)
    if mode in ("RGBA", "LA"):  # opaque images lose their alpha in some formats
        image.putalpha(Image.fromarray(picture(*SIZE, 1)[..., 0] // 2 + 100))
    try:
        data = saved(image, file_format)
    except (OSError, ValueError, KeyError):
        pytest.skip(f"{file_format} has no {mode}")
    path = tmp_path / "缺陷 é.img"
    path.write_bytes(data)
    own = {"RGBA": 4, "LA": 2, "L": 1, "1": 1, "I;16": 1, "F": 1}.get(mode, 3)
    if file_format == "WEBP":  # has colours only
        own = 4 if mode in ("RGBA", "LA") else 3
    reading = Reading((0.0, 255.0), channels)
    if file_format == "BMP" and mode == "RGBA":
        own = 3  # its header does not say what the fourth byte is
    if channels not in (1, 3, own):
        with pytest.raises(InputError, match=f"has . channels?, but INPUT.CHANNELS is {channels}") as caught:
            read_image(path, reading=reading)
        assert "\n" not in str(caught.value)
        return
    pixels = read_image(path, reading=reading)
    assert pixels.shape == (*SIZE, channels) and read_size(path) == SIZE
    is_deep = mode in ("I;16", "F") and file_format in ("TIFF", "PNG")  # Pillow makes others of 8 bits
    assert pixels.dtype == (np.float32 if is_deep else np.uint8)
    expected = np.asarray((image if mode not in ("I;16", "F") else rgb.convert("L")).convert("RGB"))[..., ::-1]
    loss = 12 if file_format == "JPEG" else 2
    if mode in ("RGBA", "LA"):
        loss = 12 if file_format == "WEBP" else loss  # what is transparent is packed coarsely
    if channels <= 2:
        expected = grey_of(expected.astype(float))
        assert np.abs(pixels[..., 0] - expected).mean() < loss
    else:
        assert np.abs(pixels[..., :3].astype(float) - expected).mean() < loss
    if channels == own and channels % 2 == 0 and mode in ("RGBA", "LA"):
        assert (pixels[..., -1] == np.asarray(image)[..., -1]).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_fourth_channel_is_kept_exactly(tmp_path: Path, suffix: str, dtype: type) -> None:
    """Infrared beside the colours, where it lies in what is meant for transparency."""
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*SIZE, 4), dtype=dtype)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    pixels = read_image(tmp_path / f"a{suffix}", reading=Reading((0.0, 65535.0), 4))
    expected = image if dtype == np.uint8 else (image.astype(float) * (255 / 65535)).astype(np.float32)
    assert (pixels == expected).all()


def test_grey_of_a_deep_image_keeps_its_levels(tmp_path: Path) -> None:
    grey = np.arange(24 * 40, dtype=np.uint16).reshape(SIZE)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "bgr.png"), np.dstack([grey] * 3))
    reading = Reading((0.0, 4095.0), 1)
    first, second = (read_image(tmp_path / f"{name}.png", reading=reading) for name in ("grey", "bgr"))
    assert first.shape == second.shape == (*SIZE, 1)
    assert np.abs(first - second).max() < 1e-3 and (np.diff(second.reshape(-1)) > 0.05).all()


@pytest.mark.parametrize(
    ("shape", "channels"), [(SIZE, 1), (SIZE, 3), ((*SIZE, 3), 1), ((*SIZE, 1), 3), ((*SIZE, 6), 6)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_array_becomes_what_a_file_becomes(
    tmp_path: Path, shape: tuple[int, ...], channels: int, dtype: type
) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    (tmp_path / "a.tif").write_bytes(tiff_file(image, photometric=1))
    reading = Reading((0.0, 255.0), channels)
    from_array = as_pixels(image, reading)
    assert from_array.shape == (*SIZE, channels)
    if len(shape) == 2 or shape[2] == channels:  # three channels without a meaning are no colours for OpenCV
        np.save(tmp_path / "a.npy", image)
        assert (from_array == read_image(tmp_path / "a.npy", reading=reading)).all()
        assert channels == 3 or (from_array == read_image(tmp_path / "a.tif", reading=reading)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_many_channels(tmp_path: Path, orientation: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 6, 7), dtype=np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff_file(image, tags={274: [orientation]}))
    reading = Reading(None, 7)
    pixels = read_image(tmp_path / "a.tif", reading=reading)
    expected = [read_image(_page(tmp_path, image[..., k], orientation)) for k in range(7)]
    assert (pixels == np.dstack([each[..., 0] for each in expected])).all()
    assert read_size(tmp_path / "a.tif") == pixels.shape[:2]


def _page(folder: Path, page: np.ndarray, orientation: int) -> Path:
    (folder / "page.tif").write_bytes(tiff_file(page, tags={274: [orientation]}))
    return folder / "page.tif"


# ---------------------------------------------------------------- to the network


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("to_bgr255", [True, False])
def test_order_and_range(channels: int, dtype: type, to_bgr255: bool) -> None:
    image = np.arange(2 * 2 * channels).reshape(2, 2, channels).astype(dtype)
    mean, std = [0.5 * k for k in range(channels)], [1.0 + k for k in range(channels)]
    normalize = transforms.Normalize(mean, std, to_bgr255)
    output, _ = transforms.Transform([normalize])(image)
    torch.testing.assert_close(
        normalize.undo(output), torch.from_numpy(image).permute(2, 0, 1).float(), rtol=1e-4, atol=1e-4
    )
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(channels, list(range(channels)))
    if to_bgr255:
        order = list(range(channels))
    expected = image[..., order].astype(float) / (1 if to_bgr255 else 255)
    np.testing.assert_allclose(output.permute(1, 2, 0), (expected - mean) / std, rtol=1e-5, atol=1e-6)
    assert output.dtype == torch.float32 and output.is_contiguous()


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_resized_and_mirrored(picture: Picture, channels: int) -> None:
    image = np.dstack([picture(30, 40, k)[..., 0] for k in range(channels)])
    mean, std = [0.0] * channels, [1.0] * channels
    transform = transforms.train_transform([20], 64, mean, std, horizontal_flip=1.0, vertical_flip=1.0)
    output, _ = transform(image)
    for channel, alone in enumerate(output):
        page = np.dstack([image[..., channel]] * 3)
        expected, _ = transforms.train_transform([20], 64, [0.0] * 3, [1.0] * 3, True, 1.0, 1.0)(page)
        assert (alone - expected[0]).abs().max() <= 1  # a level, by the kernel that torchvision chooses
