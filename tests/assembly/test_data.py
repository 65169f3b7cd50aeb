from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.assembly.data import (
    build_dataset,
    build_test_loader,
    build_test_transform,
    build_train_dataset,
    build_train_loader,
    build_train_transform,
)
from engine.data import dataset_range
from engine.data.dataset_range import range_of_dataset
from engine.data.loader import Batch
from engine.data.transforms import random_state
from engine.errors import InputError
from engine.structures import ImageBatch

WriteCoco = Callable[..., Path]
BOX = [1, 1, 5, 5]


@pytest.fixture
def toy(write_coco: WriteCoco) -> Path:
    annotations = [{"image_id": i, "category_id": 3, "bbox": BOX} for i in range(4)]
    return write_coco([(i, 20, 30 - 4 * i) for i in range(5)], annotations)


def test_train_loader(toy_cfg: Any, toy: Path) -> None:
    toy_cfg.DATALOADER.SIZE_DIVISIBILITY = 32
    toy_cfg.freeze()
    loader = build_train_loader(toy_cfg)
    batches = list(loader)
    assert len(loader) == len(batches) == 6
    assert all(batch.images.tensor.shape == (4, 3, 32, 32) for batch in batches)
    assert loader.dataset.class_names == ["scratch", "hole"]
    resumed = list(build_train_loader(toy_cfg, start_iteration=4))
    for first, second in zip(batches[4:], resumed, strict=True):
        assert torch.equal(first.images.tensor, second.images.tensor)


def test_a_drawn_seed_differs_between_runs(toy_cfg: Any, toy: Path) -> None:
    toy_cfg.SEED = -1
    runs = [tuple(t.image_id for batch in build_train_loader(toy_cfg) for t in batch.targets) for _ in range(3)]
    assert len(set(runs)) > 1


def test_filter_empty_holds_for_training_only(toy_cfg: Any, toy: Path) -> None:
    assert len(build_train_dataset(toy_cfg)) == 5
    toy_cfg.DATALOADER.FILTER_EMPTY = True
    assert len(build_train_dataset(toy_cfg)) == 4
    loader = build_test_loader(toy_cfg, "toy")
    assert sum(len(batch) for batch in loader) == 5 and len(loader) == 2


def test_several_training_sets(toy_cfg: Any, toy: Path, write_coco: WriteCoco) -> None:
    write_coco(
        [(0, 20, 20)],
        [{"image_id": 0, "category_id": 1, "bbox": BOX}],
        categories=((1, "hole"), (2, "scratch")),  # the other order
        name="other",
    )
    toy_cfg.DATASETS.TRAIN = ("toy", "other")
    dataset = build_train_dataset(toy_cfg)
    assert len(dataset) == 6 and dataset.class_names == ["scratch", "hole"]
    assert dataset.read(5)[1].labels.tolist() == [1]
    assert next(iter(build_train_loader(toy_cfg))).images.tensor.shape[0] == 4


def test_class_names_from_a_checkpoint(toy_cfg: Any, toy: Path) -> None:
    dataset = build_dataset(toy_cfg, "toy", ["hole", "scratch"])
    assert dataset.read(0)[1].labels.tolist() == [1] and dataset.category_ids == [7, 3]


def test_scale_range_goes_before_the_set(toy_cfg: Any) -> None:
    toy_cfg.INPUT.MIN_SIZE_RANGE_TRAIN = (10, 12)
    resize = build_train_transform(toy_cfg).steps[0]
    assert list(resize.min_sizes) == [10, 11, 12]
    image = torch.zeros(20, 20, 3, dtype=torch.uint8).numpy()
    drawn = set()
    for position in range(40):
        with random_state(0, position):
            drawn.add(build_train_transform(toy_cfg)(image)[0].shape[-1])
    assert drawn == {10, 11, 12}
    toy_cfg.INPUT.MIN_SIZE_RANGE_TRAIN = (12, 10)
    with pytest.raises(InputError, match="MIN_SIZE_RANGE_TRAIN"):
        toy_cfg.freeze()


@pytest.mark.parametrize(("convention", "right"), [("inclusive", 9.0), ("continuous", 10.0)])
def test_pixel_convention(toy_cfg: Any, toy: Path, convention: str, right: float) -> None:
    toy_cfg.MODEL.PIXEL_CONVENTION = convention
    toy_cfg.INPUT.MIN_SIZE_TEST, toy_cfg.INPUT.MAX_SIZE_TEST = 40, 60
    image, targets = build_dataset(toy_cfg, "toy").read(0)
    _, scaled = build_test_transform(toy_cfg)(image, targets)
    assert scaled.boxes.tolist() == [[2.0, 2.0, right + 2, right + 2]]


def test_colour_jitter_only_when_asked_for(toy_cfg: Any) -> None:
    kinds = [type(step).__name__ for step in build_train_transform(toy_cfg).steps]
    assert kinds == ["Resize", "RandomHorizontalFlip", "Normalize"]
    toy_cfg.INPUT.HUE = 0.1
    kinds = [type(step).__name__ for step in build_train_transform(toy_cfg).steps]
    assert kinds == ["Resize", "RandomHorizontalFlip", "ColorJitter", "Normalize"]


def test_mistakes(toy_cfg: Any, toy: Path) -> None:
    toy_cfg.DATASETS.TRAIN = ()
    with pytest.raises(InputError, match="DATASETS.TRAIN is empty"):
        build_train_loader(toy_cfg)
    with pytest.raises(InputError, match="did you mean toy"):
        build_test_loader(toy_cfg, "toyy")
    with pytest.raises(InputError, match="data set 'other'.*DATASETS.ROOT"):
        build_test_loader(toy_cfg, "other")


def test_real_images(toy_cfg: Any, data_dir: Path) -> None:
    toy_cfg.DATASETS.ROOT = str(data_dir)
    for name, folder, split in (("tc", "tiny_coco", "train"), ("cells", "bccd", "val")):
        toy_cfg.DATASETS.CATALOG[name] = type(toy_cfg)(
            {"img_dir": f"{folder}/{split}", "ann_file": f"{folder}/annotations/instances_{split}.json"}
        )
    toy_cfg.DATASETS.TRAIN = ("tc",)
    toy_cfg.SOLVER.IMS_PER_BATCH, toy_cfg.SOLVER.MAX_ITER = 8, 4
    toy_cfg.DATALOADER.NUM_WORKERS = 2
    batches = list(build_train_loader(toy_cfg))
    assert len({target.image_id for batch in batches for target in batch.targets}) == 32
    for batch in batches:
        for target in batch.targets:
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()
            assert (target.labels < 80).all()
    assert sum(len(batch) for batch in build_test_loader(toy_cfg, "cells")) == 72


# ---------------------------------------------------------------- images of more than 8 bits


def write_deep(folder: Path, low: int, high: int, *numbers: int) -> None:
    for number in numbers:
        values = np.linspace(low, high, 20 * 26).reshape(20, 26).astype(np.uint16)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), values)


def test_the_range_is_measured_and_said_once(toy_cfg: Any, toy: Path, said: pytest.LogCaptureFixture) -> None:
    write_deep(toy, 96, 4016, 1, 3)
    loader = build_train_loader(toy_cfg)
    batches = list(loader)
    assert loader.dataset.value_range == (96.0, 4016.0) and toy_cfg.INPUT.VALUE_RANGE == ()
    assert sum("96..4016 becomes 0..255" in record.getMessage() for record in said.records) == 1
    pixels = {t.image_id: i.tensor for b in batches for i, t in zip(_images_of(b), b.targets, strict=True)}
    spread = pixels[1].max() - pixels[1].min()
    assert spread > 240  # of 255, after resizing; 16 if only the upper byte were kept


def _images_of(batch: Batch) -> list[ImageBatch]:
    sizes = batch.images.sizes
    return [ImageBatch(batch.images.tensor[i, :, :h, :w], [(h, w)]) for i, (h, w) in enumerate(sizes)]


def test_a_declared_range(toy_cfg: Any, toy: Path, said: pytest.LogCaptureFixture) -> None:
    write_deep(toy, 96, 4016, 1)
    toy_cfg.INPUT.VALUE_RANGE = (0.0, 65535.0)
    for loader in (build_train_loader(toy_cfg), build_test_loader(toy_cfg, "toy")):
        assert loader.dataset.value_range == (0.0, 65535.0)
        assert loader.dataset.read(1)[0].max() == np.float32(4016 * 255 / 65535)
    assert [each.getMessage() for each in said.records if "VALUE_RANGE" in each.getMessage()] == [
        "INPUT.VALUE_RANGE: 0..65535 becomes 0..255 in images of more than 8 bits"
    ]


def test_one_range_for_all_training_sets(toy_cfg: Any, toy: Path, write_coco: WriteCoco) -> None:
    write_deep(toy, 96, 2000, 0)
    write_deep(write_coco([(0, 20, 20)], [], name="other"), 500, 4016, 0)
    toy_cfg.DATASETS.TRAIN = ("toy", "other")
    dataset = build_train_loader(toy_cfg).dataset
    assert dataset.value_range == (96.0, 4016.0)
    assert dataset.read(0)[0].max() == pytest.approx(123.85, abs=0.01) and dataset.read(5)[0].max() == 255


def test_8_bit_images_need_no_range(toy_cfg: Any, toy: Path, said: pytest.LogCaptureFixture) -> None:
    before = build_dataset(toy_cfg, "toy").read(0)[0]
    loader = build_train_loader(toy_cfg)
    assert loader.dataset.value_range is None and "VALUE_RANGE" not in said.text
    toy_cfg.INPUT.VALUE_RANGE = (0.0, 65535.0)
    assert (build_dataset(toy_cfg, "toy").read(0)[0] == before).all()


def test_a_spread_sample_is_measured(
    toy_cfg: Any, toy: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    write_deep(toy, 96, 1000, 0, 1, 2, 3)
    cv2.imwrite(str(toy / "images" / "4.tif"), np.linspace(0, 9000, 400).reshape(20, 20).astype(np.float32))
    (toy / "images" / "4.tif").rename(toy / "images" / "4.png")
    monkeypatch.setattr(dataset_range, "_MOST_MEASURED", 2)  # images 0 and 2
    assert range_of_dataset(build_dataset(toy_cfg, "toy")) == (96.0, 1000.0) and "floats" not in said.text
    monkeypatch.setattr(dataset_range, "_MOST_MEASURED", 5)
    assert range_of_dataset(build_dataset(toy_cfg, "toy")) == (0.0, 9000.0)
    assert "some images hold floats, others integers" in said.text
    (toy / "images" / "0.png").unlink()  # reported when it is used
    (toy / "images" / "4.png").write_bytes(b"II*\0")
    assert range_of_dataset(build_dataset(toy_cfg, "toy")) == (96.0, 1000.0)
