"""Boxes that a step returns equal those of masks that it transformed: each box has a channel in which it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.data import transforms as t
from engine.data.transforms import Scene, random_state
from engine.data.transforms.step import apply
from engine.structures import CONTINUOUS, Targets

BOXES_PER_IMAGE, IMAGES = 3, 5
STEPS = {
    "HorizontalFlip": lambda: t.RandomHorizontalFlip(1.0),
    "VerticalFlip": lambda: t.RandomVerticalFlip(1.0),
    "Rotate90": lambda: t.Rotate90(),
    "Expand": lambda: t.Expand(fill=0),
    "RandomCrop": lambda: t.RandomCrop((0.3, 1.0)),
    "RandomCrop of a size": lambda: t.RandomCrop(size=(30, 25)),
    "IoUCrop": lambda: t.IoUCrop(),
    "Cutout": lambda: t.Cutout(fill=255, scale=(0.02, 0.05)),
    "Resize": lambda: t.Resize([40, 90], 120, CONTINUOUS),
    "MultiScale": lambda: t.MultiScale([40, 90], 120, CONTINUOUS),
    "LargeScaleJitter": lambda: t.LargeScaleJitter((64, 80), (0.5, 2.0), convention=CONTINUOUS),
    "Mosaic": lambda: t.Mosaic(fill=0, convention=CONTINUOUS),
    "MixUp": lambda: t.MixUp((0.55, 0.56), convention=CONTINUOUS),
    "CopyPaste": lambda: t.CopyPaste((2, 3), feather=0, convention=CONTINUOUS),
    "CopyPaste with a seam": lambda: t.CopyPaste((1, 2), feather=3, flip=False, convention=CONTINUOUS),
}


@st.composite
def scenes(draw) -> tuple[Tensor, Targets, Scene]:
    """An image with boxes of whole pixels and a scene of others; each box is 255 in a channel of its own."""
    images, targets = [], []
    channels = BOXES_PER_IMAGE * IMAGES
    for number in range(IMAGES):
        height, width = draw(st.integers(24, 70)), draw(st.integers(24, 70))
        image = np.zeros((height, width, channels), np.uint8)
        boxes = []
        for row in range(BOXES_PER_IMAGE):
            w, h = draw(st.integers(6, min(20, width))), draw(st.integers(6, min(20, height)))
            x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
            image[y : y + h, x : x + w, number * BOXES_PER_IMAGE + row] = 255
            boxes.append([x, y, x + w, y + h])
        images.append(image)
        labels = torch.arange(BOXES_PER_IMAGE) + number * BOXES_PER_IMAGE
        ignore = torch.tensor([False, False, draw(st.booleans())])
        targets.append(Targets(torch.tensor(boxes).float(), labels, ignore, number, (height, width)))
    unread = list(range(1, IMAGES))  # so that no box comes twice

    def read(index: int) -> tuple[np.ndarray, Targets]:
        index = unread.pop(0)
        return images[index], targets[index]

    class Data:
        def __len__(self) -> int:
            return IMAGES

        def labels(self, index: int) -> np.ndarray:
            return np.arange(BOXES_PER_IMAGE)

    return torch.from_numpy(images[0]).permute(2, 0, 1), targets[0], Scene(Data(), read, 0, 7, 3)


def box_of(mask: Tensor) -> list[float] | None:
    """The box of what is true in (H, W)."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return None
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("name", STEPS)
@given(scene=scenes(), seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.uint8, torch.float32]))
@settings(max_examples=12)
def test_boxes_equal_those_of_transformed_masks(name, scene, seed, dtype):
    image, targets, scene = scene
    with random_state(seed):
        out, found = apply(STEPS[name](), image.to(dtype), targets, scene)
    assert out.shape[0] == image.shape[0] and tuple(out.shape[1:]) == tuple(found.size)
    assert torch.isfinite(found.boxes).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    height, width = found.size
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([width, height, width, height]) + 1e-4).all()
    assert len(set(found.labels.tolist())) == len(found), "no box comes twice"
    seen = dict(zip(found.labels.tolist(), found.boxes.tolist(), strict=True))
    if name == "Cutout":  # holes are 255 in all channels
        before = dict(zip(targets.labels.tolist(), targets.boxes.tolist(), strict=True))
        assert all(before[label] == box for label, box in seen.items())
        return
    # Half of what a pixel shows is the object: the border of a scaled box lies there. Mixed images are at half level.
    level = 60 if name == "MixUp" else 127
    seam = 3 if name == "CopyPaste with a seam" else 0
    for label in range(image.shape[0]):
        mask_box = box_of(out[label] > level)
        # What stands beside a pasted object is to be seen in its seam.
        tolerance = 1 + seam * (label >= BOXES_PER_IMAGE)
        if label not in seen:
            # What is gone may have left the blur of an edge.
            sides = [] if mask_box is None else [mask_box[2] - mask_box[0], mask_box[3] - mask_box[1]]
            assert not sides or min(sides) <= tolerance, (label, mask_box)
        elif mask_box is None:
            x1, y1, x2, y2 = seen[label]
            assert min(x2 - x1, y2 - y1) < 1.5, (label, seen[label])
        else:
            difference = max(abs(float(a) - b) for a, b in zip(mask_box, seen[label], strict=True))
            assert difference <= tolerance, (label, mask_box, seen[label])


@pytest.mark.parametrize("name", STEPS)
@given(scene=scenes(), seed=st.integers(0, 10**6))
@settings(max_examples=5)
def test_ignore_regions_stay_ignored(name, scene, seed):
    image, targets, scene = scene
    targets.ignore[:] = True
    with random_state(seed):
        _, found = apply(STEPS[name](), image, targets, scene)
    of_own = found.labels < BOXES_PER_IMAGE
    assert found.ignore[of_own].all()
