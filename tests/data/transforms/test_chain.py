from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data import transforms
from engine.data.transforms import random_state, resized_size
from engine.structures import CONTINUOUS, INCLUSIVE, ImageBatch, PixelConvention, Targets

Picture = Callable[..., np.ndarray]
MEAN, STD = [102.9801, 115.9465, 122.7717], [1.0, 1.0, 1.0]
sides = st.integers(1, 5000)


def _targets(boxes: list[list[float]], size: tuple[int, int]) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        ignore=torch.zeros(len(boxes), dtype=torch.bool),
        image_id=1,
        size=size,
        original_size=size,
    )


@pytest.mark.parametrize(
    ("size", "min_size", "max_size", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),  # floored from 1066.67
        ((640, 480), 800, 1333, (1066, 800)),
        ((600, 600), 800, 1333, (800, 800)),
        ((200, 300), 192, 256, (171, 256)),
        ((220, 170), 192, 256, (248, 192)),
        ((200, 1000), 800, 1333, (267, 1333)),  # the reference: 267 x 1335
        ((1, 5000), 800, 1333, (1, 1333)),  # the reference: 0 high
        ((500, 500), 800, 600, (600, 600)),
    ],
)
def test_resized_size_by_hand(size: tuple[int, int], min_size: int, max_size: int, expected: tuple[int, int]) -> None:
    assert resized_size(size, min_size, max_size) == expected


def _reference_size(height: int, width: int, size: int, max_size: int) -> tuple[int, int]:
    """The published rule, from its description: returns the size even where it is too large."""
    short, long = float(min(height, width)), float(max(height, width))
    if long / short * size > max_size:
        size = int(round(max_size * short / long))
    if min(height, width) == size:
        return height, width
    return (int(size * height / width), size) if width < height else (size, int(size * width / height))


@given(sides, sides, st.integers(1, 1500), st.integers(1, 2000))
def test_resized_size_is_the_reference_within_max_size(height: int, width: int, min_size: int, max_size: int) -> None:
    size = resized_size((height, width), min_size, max_size)
    assert min(size) >= 1 and max(size) <= max_size
    assert resized_size((width, height), min_size, max_size) == size[::-1]
    reference = _reference_size(height, width, min_size, max_size)
    if min(reference) >= 1 and max(reference) <= max_size:
        assert size == reference


@pytest.mark.parametrize("convention", [CONTINUOUS, INCLUSIVE])
def test_resize_scales_boxes_per_axis(picture: Picture, convention: PixelConvention) -> None:
    image = picture(200, 300)
    transform = transforms.test_transform(192, 256, MEAN, STD, convention=convention)
    tensor, targets = transform(image, _targets([[30, 20, 61, 51], [5, 5, 5.2, 5.2]], (200, 300)))
    assert tensor.shape == (3, 171, 256) and targets.size == (171, 256)
    assert targets.original_size == (200, 300)
    ratio_x, ratio_y = 256 / 300, 171 / 200
    expected = [30 * ratio_x, 20 * ratio_y, (61 - convention.extent) * ratio_x + convention.extent]
    assert targets.boxes[0, :3].tolist() == pytest.approx(expected)
    widths = targets.boxes[:, 2:] - targets.boxes[:, :2]
    assert (widths > 0).all()


def test_a_thin_box_stays_upright_when_scaled_up(picture: Picture) -> None:
    transform = transforms.test_transform(100, 100, MEAN, STD, convention=INCLUSIVE)
    _, targets = transform(picture(20, 20), _targets([[5, 5, 5.1, 9]], (20, 20)))
    assert targets.boxes.tolist() == [[25, 25, 26, 41]]


def test_normalised_values(picture: Picture) -> None:
    image = picture(16, 16)
    mean, std = [1.0, 2.0, 3.0], [2.0, 4.0, 8.0]
    bgr = torch.from_numpy(image).permute(2, 0, 1).float()
    out, _ = transforms.test_transform(16, 16, mean, std)(image, None)
    expected = (bgr - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert out.dtype == torch.float32 and out.is_contiguous()
    torch.testing.assert_close(out, expected)

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    out, none = transforms.test_transform(16, 16, mean, std, to_bgr255=False)(image, None)
    rgb = bgr.flip(0) / 255
    expected = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(out, expected)
    assert none is None


@given(st.booleans(), st.integers(1, 9), st.integers(1, 9))
def test_flips_are_involutions(horizontal: bool, height: int, width: int) -> None:
    flip_class = transforms.RandomHorizontalFlip if horizontal else transforms.RandomVerticalFlip
    flip = flip_class(1.0)
    image = torch.arange(3 * height * width, dtype=torch.uint8).view(3, height, width)
    targets = _targets([[0, 0, width, height], [0, 0, width / 2, height / 4]], (height, width))
    once_image, once = flip(image, targets)
    twice_image, twice = flip(once_image, once)
    assert torch.equal(once_image, image.flip(-1 if horizontal else -2))
    assert torch.equal(once.boxes[0], targets.boxes[0])
    assert torch.equal(twice_image, image) and torch.equal(twice.boxes, targets.boxes)
    assert flip_class(0.0)(image, targets)[1] is targets


def test_a_box_follows_its_pixels() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[4:9, 3:10] = 255
    transform = transforms.train_transform(
        [40], 60, [0, 0, 0], STD, True, horizontal_flip=1.0, vertical_flip=1.0, convention=CONTINUOUS
    )
    tensor, targets = transform(image, _targets([[3, 4, 10, 9]], (20, 30)))
    x1, y1, x2, y2 = targets.boxes[0].int().tolist()
    assert (tensor[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] > 128).all()
    assert tensor.sum() == pytest.approx(3 * 255 * (x2 - x1) * (y2 - y1), rel=0.05)


def test_same_key_same_image(picture: Picture) -> None:
    transform = transforms.train_transform(range(10, 40), 64, MEAN, STD, vertical_flip=0.5, jitter=(0.3, 0.3, 0.3, 0.1))
    image, targets = picture(30, 40), _targets([[3, 4, 10, 9]], (30, 40))

    def draw(*key: int) -> tuple[torch.Tensor, Targets]:
        with random_state(*key):
            return transform(image, targets)

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = draw(1, 2), draw(1, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1].boxes, again[1].boxes)
    assert len({draw(1, position)[0].shape for position in range(30)}) > 5
    assert len({draw(seed, 1)[0].shape for seed in range(30)}) > 5


def test_jitter_sees_rgb(picture: Picture) -> None:
    image = torch.from_numpy(picture(8, 8)).permute(2, 0, 1)
    grey = transforms.ColorJitter(0.0, 0.0, 1.0, 0.0)
    grey.limits = [("saturation", (0.0, 0.0))]  # no colour at all: BT.601 luma
    out, _ = grey(image, _targets([], (8, 8)))
    blue, green, red = image.float()
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert (out.float() - luma).abs().max() <= 1.5


@pytest.mark.parametrize(
    "strengths", [(0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 0.5, 0), (0, 0, 0, 0.2), (0.3, 0.3, 0.3, 0.1)]
)
def test_floats_are_transformed_like_bytes(picture: Picture, strengths: tuple[float, float, float, float]) -> None:
    """Images of more than 8 bits: every step sees 0..255 and not torchvision's 0..1."""
    image, targets = picture(30, 40), _targets([[3, 4, 10, 9]], (30, 40))
    transform = transforms.train_transform([24], 64, MEAN, STD, vertical_flip=0.5, jitter=strengths)
    for position in range(8):
        outputs = []
        for pixels in (image, image.astype(np.float32)):
            before = pixels.copy()
            with random_state(1, position):
                outputs.append(transform(pixels, targets))
            assert (pixels == before).all()
        (of_bytes, boxes), (of_floats, same_boxes) = outputs
        # Bytes are rounded after each step, and a rounded hue or saturation is multiplied.
        assert (of_bytes - of_floats).abs().max() < (8 if any(strengths[2:]) else 3)
        assert torch.equal(boxes.boxes, same_boxes.boxes) and of_floats.dtype == torch.float32


def test_a_grey_image_of_floats_is_scaled_once() -> None:
    grey = torch.rand(1, 40, 60) * 255
    image = grey.repeat(3, 1, 1)
    scaled = transforms.resize_pixels(image, (20, 30))
    assert torch.equal(scaled, transforms.resize_pixels(grey, (20, 30)).repeat(3, 1, 1))
    for place in ((2, 16, 16), (1, 3, 5)):  # an image that is nearly grey
        other = image.clone()
        other[place] += 40
        channels = [transforms.resize_pixels(channel[None], (20, 30)) for channel in other]
        torch.testing.assert_close(transforms.resize_pixels(other, (20, 30)), torch.cat(channels))


def test_normalising_changes_no_image(picture: Picture) -> None:
    image = picture(16, 16).astype(np.float32)
    for to_bgr255 in (True, False):
        before = image.copy()
        transforms.Transform([transforms.Normalize([9.0] * 3, [2.0] * 3, to_bgr255)])(image)
        assert (image == before).all()


def test_scale_set_is_drawn_evenly() -> None:
    resize = transforms.Resize([10, 20, 30], 100, CONTINUOUS)
    image, targets = torch.zeros(3, 40, 40, dtype=torch.uint8), _targets([], (40, 40))
    with random_state(0):
        drawn = [resize(image, targets)[0].shape[-1] for _ in range(300)]
    assert all(70 < drawn.count(side) < 130 for side in (10, 20, 30))


def test_golden_images(golden_dir: Path) -> None:
    golden = torch.load(golden_dir / "atss" / "small_box.pth", weights_only=True)
    transform = transforms.test_transform(192, 256, MEAN, STD)
    resize_only = transforms.Transform([transforms.Resize([192], 256, INCLUSIVE)])
    outputs = []
    for rgb, resized, normalized in zip(
        golden["images_uint8_rgb_hwc"],
        golden["images_resized_uint8"],
        golden["images_normalized"],
        strict=True,
    ):
        bgr = rgb.numpy()[:, :, ::-1]
        ours = resize_only(bgr)[0].flip(0).permute(1, 2, 0)
        assert ours.dtype == torch.uint8 and ours.shape == resized.shape
        assert (ours.int() - resized.int()).abs().max() <= 1
        output, _ = transform(bgr)
        assert output.shape == normalized.shape
        assert (output - normalized).abs().max() <= 1.001
        # By its version torchvision rounds up to a quarter of the pixels otherwise than Pillow does.
        assert (output - normalized).abs().mean() < 0.25
        outputs.append(output)
    batch = ImageBatch.from_list(outputs, 32)
    assert batch.tensor.shape == golden["batch"].shape
    assert (batch.tensor - golden["batch"]).abs().max() <= 1.001
    assert [tuple(size) for size in golden["image_sizes_hw"]] == batch.sizes
