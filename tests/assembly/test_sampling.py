"""Class maps and sampling as the configuration states them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.assembly.data import (
    build_dataset,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    epoch_length,
)
from engine.assembly.doctor import check_data
from engine.assembly.solver import run_length
from engine.assembly.testing import score_results
from engine.errors import InputError
from tests.conftest import WriteCoco

BOX = [1, 1, 5, 5]


@pytest.fixture
def sets(write_coco: WriteCoco) -> Path:
    """toy: images 0..3 with a scratch, 4 without; other: a dint and a hole, and an image without boxes."""
    write_coco([(i, 20, 30) for i in range(5)], [{"image_id": i, "category_id": 3, "bbox": BOX} for i in range(4)])
    rows = [{"image_id": 0, "category_id": 1, "bbox": BOX}, {"image_id": 0, "category_id": 2, "bbox": BOX}]
    return write_coco([(0, 20, 30), (1, 20, 30)], rows, ((1, "dint"), (2, "hole")), name="other")


def test_a_map_for_all_data_sets(toy_cfg: Any, sets: Path) -> None:
    toy_cfg.DATASETS.TRAIN = ("toy", "other")
    toy_cfg.DATASETS.CLASS_MAP = {"scratch": "damage", "dint": "damage"}
    toy_cfg.freeze()
    dataset = build_train_dataset(toy_cfg)
    assert dataset.class_names == ["damage", "hole"]
    assert dataset.read(5)[1].labels.tolist() == [0, 1]
    tested = build_test_loader(toy_cfg, "other", dataset.class_names).dataset
    assert tested.category_ids == [1, 2]
    results = [{"image_id": 0, "category_id": 1, "bbox": BOX, "score": 0.9}]
    outcome = score_results(toy_cfg, tested, results)
    assert outcome["metrics"]["per_class"]["damage"]["AP50"] == pytest.approx(1)
    assert list(outcome["thresholds"]["classes"]) == ["damage", "hole"]


def test_a_class_without_a_name(toy_cfg: Any, sets: Path) -> None:
    toy_cfg.DATASETS.CLASS_MAP = {"dint": ""}
    assert build_dataset(toy_cfg, "other").read(0)[1].labels.tolist() == [0]
    toy_cfg.DATASETS.OTHER_CLASSES = "ignore"
    toy_cfg.DATASETS.TEST = ("other",)
    targets = build_dataset(toy_cfg, "other").read(0)[1]
    assert targets.ignore.tolist() == [True, False]


def test_unknown_names(toy_cfg: Any, sets: Path) -> None:
    toy_cfg.DATASETS.CLASS_MAP = {"dint": "dent"}
    with pytest.raises(InputError, match=r"CLASS_MAP: 'dint' is not a class of toy \(there are 'scratch', 'hole'\)"):
        build_dataset(toy_cfg, "toy")
    toy_cfg.DATASETS.TEST = ("other",)  # it has the name
    assert build_dataset(toy_cfg, "toy").class_names == ["scratch", "hole"]
    toy_cfg.DATASETS.CLASS_MAP = {"dints": "dent"}
    with pytest.raises(InputError, match="'dints' is not a class of toy, other; did you mean dint?"):
        build_dataset(toy_cfg, "toy")
    with pytest.raises(InputError, match="'dints' is not a class of"):  # not: has a class that is not trained
        build_dataset(toy_cfg, "toy", ["dent"])
    toy_cfg.DATASETS.VAL = ("elsewhere",)  # a set that this machine lacks may have it
    assert build_dataset(toy_cfg, "toy").class_names == ["scratch", "hole"]


def test_background(toy_cfg: Any, write_coco: WriteCoco) -> None:
    rows = [{"image_id": 0, "category_id": 0, "bbox": BOX}, {"image_id": 0, "category_id": 2, "bbox": BOX}]
    write_coco([(0, 20, 30)], rows, ((0, "background"), (2, "hole")))
    assert build_dataset(toy_cfg, "toy").class_names == ["background", "hole"]
    toy_cfg.DATASETS.DROP_BACKGROUND = True
    dataset = build_dataset(toy_cfg, "toy")
    assert dataset.class_names == ["hole"] and dataset.num_boxes(0) == 1


def batches_of(cfg: Any, **options: Any) -> list[list[int]]:
    return [[target.image_id for target in batch.targets] for batch in build_train_loader(cfg, **options)]


def test_repeats_and_shares(toy_cfg: Any, sets: Path) -> None:
    toy_cfg.DATASETS.CATALOG["toy"]["repeat"] = 2.5
    toy_cfg.DATALOADER.EMPTY_SHARE = 0.25
    toy_cfg.SOLVER.MAX_EPOCH = 2
    toy_cfg.freeze()
    loader = build_train_loader(toy_cfg)
    length = loader.batch_sampler.epoch_length
    assert length == 14  # 10 with boxes, a quarter more without
    assert len(loader) == run_length(toy_cfg, length).max_iter == 7
    batches = batches_of(toy_cfg)
    assert [batch.count(4) for batch in batches] == [1] * 7
    counts = Counter(sum(batches, []))
    assert all(4 <= counts[index] <= 6 for index in range(4))
    assert batches_of(toy_cfg, start_iteration=3) == batches[3:]


def test_off_is_as_before(toy_cfg: Any, sets: Path) -> None:
    batches = batches_of(toy_cfg)
    assert batches[0] == [4, 3, 1, 2]  # of the version before there were plans
    toy_cfg.DATALOADER.REPEAT_THRESHOLD = 0.01  # no class is so rare
    assert batches_of(toy_cfg) == batches


def test_rare_classes(toy_cfg: Any, sets: Path) -> None:
    toy_cfg.DATASETS.TRAIN = ("other", "toy")
    toy_cfg.DATASETS.CLASS_MAP = {"scratch": "dint"}
    toy_cfg.DATALOADER.REPEAT_THRESHOLD = 4 / 7  # holes are on one image of seven, dints on five
    sampler = build_train_loader(toy_cfg).batch_sampler
    assert sampler.plan.weights.tolist() == pytest.approx([2, 1, 1, 1, 1, 1, 1]) and sampler.epoch_length == 8


def test_checks_count_what_an_epoch_has(toy_cfg: Any, sets: Path, said: pytest.LogCaptureFixture) -> None:
    toy_cfg.DATALOADER.EMPTY_SHARE = 0.5
    toy_cfg.SOLVER.MAX_ITER = 2
    toy_cfg.freeze()
    dataset = build_train_dataset(toy_cfg)
    said.clear()
    assert epoch_length(toy_cfg, dataset) == 8 and not said.records  # 4 images with boxes, the empty one 4 times
    found = {each.code: each.message for each in check_data(toy_cfg, quick=True).findings}
    assert found["SCHEDULE_SHORT"] == "2 iterations of 4 images are 1 passes over 8 images"


def test_checks_build_the_steps(toy_cfg: Any, sets: Path) -> None:
    toy_cfg.INPUT.AUGMENTATIONS = ({"name": "CopyPaste", "classes": ("scrach",)},)
    toy_cfg.freeze()
    (found,) = (each for each in check_data(toy_cfg, quick=True).findings if "AUGMENTATIONS" in each.message)
    assert found.code == "CONFIG_UNUSABLE" and "did you mean scratch?" in found.message
