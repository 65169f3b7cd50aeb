from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.assembly.augmentation import build_augmentations
from engine.assembly.data import build_train_loader, build_train_transform
from engine.data import transforms as t
from engine.data.transforms import Sometimes
from engine.errors import InputError

ALL = (
    {"name": "PhotometricDistortion", "prob": 0.5},
    {"name": "IoUCrop", "min_ious": (0.0, 0.3)},
    {"name": "Mosaic", "prob": 0.7},
    {"name": "MixUp", "prob": 0.3},
    {"name": "CopyPaste", "feather": 1},
    {"name": "Rotate90"},
    {"name": "MultiScale", "min_sizes": (16, 24, 32), "max_size": 40},
)
OWN = """\
from engine.data.transforms import AUGMENTATIONS

@AUGMENTATIONS.register("Darker{n}")
class Darker:
    def __init__(self, by: int, class_names=()):
        self.by, self.class_names = by, class_names

    def __call__(self, image, targets):
        return image // self.by, targets
"""


@pytest.fixture
def toy(write_coco: Callable[..., Path]) -> Path:
    annotations = [{"image_id": i, "category_id": 3, "bbox": [i, 1, 8, 9]} for i in range(4)]
    annotations.append({"image_id": 4, "category_id": 7, "bbox": [0, 0, 10, 10], "iscrowd": 1})
    return write_coco([(i, 40, 50 - 4 * i) for i in range(6)], annotations)


def same(first: Any, second: Any) -> bool:
    return torch.equal(first.images.tensor, second.images.tensor) and all(
        torch.equal(a.boxes, b.boxes) and torch.equal(a.ignore, b.ignore) and a.size == b.size
        for a, b in zip(first.targets, second.targets, strict=True)
    )


def test_steps_get_their_arguments_and_probability(toy_cfg: Any) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = (
        {"name": "Mosaic", "scale": (0.7, 0.8)},
        {"name": "IoUCrop"},
        {"name": "VerticalFlip"},
    )
    mosaic, crop, flip = build_augmentations(toy_cfg)
    assert isinstance(mosaic, Sometimes) and mosaic.prob == 0.5 and mosaic.step.scale == (0.7, 0.8)
    assert isinstance(crop, t.IoUCrop)  # always
    assert isinstance(flip, t.RandomVerticalFlip) and flip.prob == 0.5


def test_the_list_comes_first_and_may_set_the_size(toy_cfg: Any) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = ({"name": "Blur", "prob": 1.0},)
    kinds = [type(step).__name__ for step in build_train_transform(toy_cfg).steps]
    assert kinds == ["Blur", "Resize", "RandomHorizontalFlip", "Normalize"]
    toy_cfg.INPUT.AUGMENTATIONS = ({"name": "LargeScaleJitter", "size": (32, 32)},)
    kinds = [type(step).__name__ for step in build_train_transform(toy_cfg).steps]
    assert kinds == ["LargeScaleJitter", "RandomHorizontalFlip", "Normalize"]


def test_training_is_a_function_of_seed_and_position(toy_cfg: Any, toy: Path) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = ALL
    toy_cfg.freeze()
    batches = list(build_train_loader(toy_cfg))
    assert all(same(a, b) for a, b in zip(batches, build_train_loader(toy_cfg), strict=True))
    assert all(same(a, b) for a, b in zip(batches[3:], build_train_loader(toy_cfg, start_iteration=3), strict=True))
    toy_cfg.defrost()
    toy_cfg.DATALOADER.NUM_WORKERS = 2
    assert all(same(a, b) for a, b in zip(batches, build_train_loader(toy_cfg), strict=True))
    toy_cfg.SEED += 1
    assert not all(same(a, b) for a, b in zip(batches, build_train_loader(toy_cfg), strict=True))


def test_two_ranks_see_what_one_process_does(toy_cfg: Any, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = ALL
    whole = list(build_train_loader(toy_cfg))
    monkeypatch.setattr("engine.assembly.data.world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("engine.assembly.data.rank", lambda rank=rank: rank)
        for batch, part in zip(whole, build_train_loader(toy_cfg), strict=True):
            half = len(batch.targets) // 2
            of_whole = batch.targets[rank * half : (rank + 1) * half]
            assert [a.size for a in part.targets] == [a.size for a in of_whole]
            assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(part.targets, of_whole, strict=True))


def test_an_unreadable_second_image_is_replaced_and_named(toy_cfg: Any, toy: Path) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = ({"name": "Mosaic", "prob": 1.0},)
    (toy / "images" / "2.png").write_bytes(b"no image")
    batches = list(build_train_loader(toy_cfg))
    assert all(len(batch) == 4 for batch in batches)
    assert all("2.png" in line for batch in batches for line in batch.skipped) and any(b.skipped for b in batches)


def test_a_step_of_the_users_own(toy_cfg: Any, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "my_darker_step.py").write_text(OWN.format(n=1))
    toy_cfg.IMPORTS = ("my_darker_step",)
    toy_cfg.INPUT.AUGMENTATIONS = ({"name": "Darker1", "by": 2, "prob": 0.5},)
    (step,) = build_augmentations(toy_cfg, ["hole"])
    assert step.prob == 0.5 and step.step.by == 2 and step.step.class_names == ("hole",)
    build_train_loader(toy_cfg)
    for arguments, told in (
        ({"bye": 2}, r"step 1 \(Darker1\).bye: Darker1 takes no such argument; did you mean by?"),
        ({}, r"step 1 \(Darker1\): Darker1 needs a value for by"),
        ({"by": 2, "prob": 3}, r"step 1 \(Darker1\): prob must be between 0 and 1, got 3"),
    ):
        toy_cfg.INPUT.AUGMENTATIONS = ({"name": "Darker1", **arguments},)
        with pytest.raises(InputError, match=told):
            build_augmentations(toy_cfg)


def test_a_class_that_is_not_there(toy_cfg: Any, toy: Path) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = ({"name": "CopyPaste", "classes": ("scrach",)},)
    with pytest.raises(InputError, match=r"step 1 \(CopyPaste\): .*no class 'scrach'; did you mean scratch?"):
        build_train_loader(toy_cfg)
