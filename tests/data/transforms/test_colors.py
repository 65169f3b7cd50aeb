"""The bits of torchvision, on images with flat, grey, black, white and saturated parts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from engine.data.transforms import ColorJitter, colors, random_state
from engine.data.transforms.pixels import in_rgb
from engine.structures import Targets

FACTORS = {
    "brightness": (0.0, 0.79, 1.0, 1.234, 4.0),
    "contrast": (0.0, 0.79, 1.0, 1.234, 4.0),
    "saturation": (0.0, 0.79, 1.0, 1.234, 4.0),
    "hue": (-0.5, -0.123, 0.0, 0.031, 0.26, 0.5),
}


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 4] = cv2.resize(image[:4, :4], (width, height // 4))
    rows = height // 16
    for number, change in enumerate(((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 255), (7, 7, 7))):
        image[(4 + number) * rows : (5 + number) * rows] = change
    image[10 * rows : 11 * rows] = image[10 * rows : 11 * rows, :, :1]
    image[11 * rows : 12 * rows, :, 1] = image[11 * rows : 12 * rows, :, 2]
    return image


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("size", [(33, 41), (240, 320)])  # within a block of pixels, and beyond one
def test_each_change_has_the_bits_of_torchvision(name: str, size: tuple[int, int]) -> None:
    image = torch.from_numpy(picture(*size)).permute(2, 0, 1)
    planes = [plane.contiguous() for plane in image]
    for factor in FACTORS[name]:
        expected = getattr(F, f"adjust_{name}")(image, factor)
        assert torch.equal(torch.stack(getattr(colors, f"adjust_{name}")(planes, factor)), expected)


@pytest.mark.nightly
def test_hues_of_all_colours() -> None:
    codes = torch.arange(1 << 24).view(4096, 4096)
    planes = [(codes >> shift & 255).to(torch.uint8) for shift in (16, 8, 0)]
    for factor in (-0.37, 0.031, 0.25):
        for rows in range(0, 4096, 512):
            part = [plane[rows : rows + 512].contiguous() for plane in planes]
            assert torch.equal(torch.stack(colors.adjust_hue(part, factor)), F.adjust_hue(torch.stack(part), factor))


@pytest.mark.parametrize("limits", [(0.2, 0.3, 0.4, 0.05), (0.0, 0.0, 0.5, 0.0), (0.3, 0.0, 0.0, 0.5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("num_channels", [1, 3, 5])
@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_jitter_draws_and_changes_as_torchvision_does(
    limits: tuple, is_flipped: bool, num_channels: int, dtype: torch.dtype
) -> None:
    image = torch.from_numpy(picture(64, 80)).permute(2, 0, 1).repeat(2, 1, 1)[:num_channels].to(dtype)
    if num_channels == 3 and not is_flipped:
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # interleaved, not planes one after the other
    targets = Targets.empty(image_id=0, size=(64, 80))

    for position in range(6):
        with random_state(3, position):
            ours, next_ours = ColorJitter(*limits)(image, targets)[0], torch.rand(())
        with random_state(3, position):
            theirs, next_theirs = in_rgb(image, v2.ColorJitter(*limits)), torch.rand(())
        assert torch.equal(ours, theirs) and ours.dtype == dtype and next_ours == next_theirs
