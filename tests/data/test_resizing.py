"""Scaling without torch is torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.resizing import resized
from engine.data.transforms import resize_pixels

SIDES = st.integers(1, 150)


def by_torch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_pixels(torch.from_numpy(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy()


has_bytes = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="torchvision scales bytes as floats here"
)


@has_bytes
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3, 4, 5]), st.integers(0, 99))
def test_bytes_have_the_same_bits(h: int, w: int, new_h: int, new_w: int, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, channels), dtype=np.uint8)
    assert np.array_equal(resized(image, (new_h, new_w)), by_torch(image, (new_h, new_w)))


@has_bytes
@pytest.mark.parametrize("size", [(800, 1422), (100, 150), (1080, 30), (1, 1)])
def test_large_images_have_the_same_bits(size: tuple[int, int]) -> None:
    """Many pixels in one: their weights need more bits than float32 has for the sum."""
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    assert np.array_equal(resized(image, size), by_torch(image, size))


@given(SIDES, SIDES, SIDES, SIDES)
def test_floats_agree(h: int, w: int, new_h: int, new_w: int) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (h, w, 3)).astype(np.float32)
    ours = resized(image, (new_h, new_w))
    assert ours.dtype == np.float32
    assert np.abs(ours - by_torch(image, (new_h, new_w))).max() < 0.02


def test_an_image_of_the_size_stays() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(resized(image, (2, 4)), image)
