"""Every configuration file, made narrow, builds, trains two steps, tests an image and resumes bit for bit.

A few files that name all parts together are tried always, but for the largest bodies; all of them nightly.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from engine.assembly.model import build_model
from engine.assembly.testing import evaluate
from engine.assembly.training import train
from engine.checkpoint import io
from engine.checkpoint.sources import locate
from engine.checkpoint.weights import load_weights
from engine.config import load_config
from tests.configurations import CONFIGS, few_with_all_parts, narrow
from tests.conftest import made_once, smooth_image
from tests.end_to_end.conftest import figures_of

SIZE = (64, 96)
FEW = {path for path in few_with_all_parts() if not re.search("ConvNeXt|Swin", path.stem)}
SMALL = {
    "DATASETS.TRAIN": "('tiny',)",
    "DATASETS.TEST": "('tiny_test',)",
    "DATASETS.VAL": "()",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_RANGE_TRAIN": "(-1, -1)",
    "INPUT.MAX_SIZE_TRAIN": "96",
    "INPUT.MIN_SIZE_TEST": "64",
    "INPUT.MAX_SIZE_TEST": "96",
    "MODEL.WEIGHT": "",  # see `test_named_weights_can_be_found`
    "DATALOADER.NUM_WORKERS": "0",
    "SOLVER.BASE_LR": "1e-4",
    "SOLVER.MAX_EPOCH": "0",
    "SOLVER.MAX_ITER": "2",
    "SOLVER.STEPS": "(1,)",
    "SOLVER.STEPS_EPOCH": "()",
    "SOLVER.WARMUP_ITERS": "0",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.CHECKPOINT_PERIOD": "1",
    "SOLVER.LOG_PERIOD": "1",
    "TEST.IMS_PER_BATCH": "1",
    "SEED": "3",
}
SMALL_STEPS = {"MultiScale": {"min_sizes": [64, 80], "max_size": 96}, "LargeScaleJitter": {"size": list(SIZE)}}


def _images(folder: Path, name: str, boxes_per_image: list[list[tuple[int, ...]]]) -> dict[str, str]:
    """A COCO set of images with boxes (class, x, y, w, h, is crowd); returns its entry of the catalog."""
    rows = [
        {
            "id": len(boxes_per_image) * i + k,
            "image_id": i,
            "category_id": c,
            "bbox": box,
            "iscrowd": crowd,
            "area": 400,
        }
        for i, boxes in enumerate(boxes_per_image)
        for k, (c, *box, crowd) in enumerate(boxes)
    ]
    images = [
        {"id": i, "file_name": f"{name}_{i}.png", "height": SIZE[0], "width": SIZE[1]}
        for i in range(len(boxes_per_image))
    ]
    for i, row in enumerate(images):
        cv2.imwrite(str(folder / row["file_name"]), smooth_image(*SIZE, seed=i))
    categories = [{"id": i, "name": each} for i, each in enumerate("abc")]
    (folder / f"{name}.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return {"img_dir": ".", "ann_file": f"{name}.json"}


def _make_data(folder: Path) -> dict[str, str]:
    two = [(0, 6, 8, 40, 44, 0), (2, 30, 10, 60, 24, 0)]
    crowd = [(1, 10, 10, 30, 30, 0), (1, 60, 40, 30, 20, 1)]
    catalog = {
        "tiny": _images(folder, "tiny", [two, [], crowd, two[:1]]),
        "tiny_test": _images(folder, "tiny_test", [two]),
    }
    return {"DATASETS.ROOT": str(folder), "DATASETS.CATALOG": json.dumps(catalog)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The keys of a training set of four images, one without boxes and one with a crowd, and a test set of one."""
    return made_once(tmp_path_factory, "tiny_data", _make_data)


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """A training leaves them off for the whole process."""
    yield
    torch.set_flush_denormal(False)


def small(path: Path, changed: dict[str, str]) -> CfgNode:
    steps = [{**step, **SMALL_STEPS.get(step["name"], {})} for step in load_config(path).INPUT.AUGMENTATIONS]
    return narrow(path, {**SMALL, "INPUT.AUGMENTATIONS": json.dumps(steps), **changed})


def assert_same_bits(first: Any, second: Any, where: str) -> None:
    """Nested mappings, sequences and tensors."""
    assert type(first) is type(second), where
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            assert_same_bits(value, second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same_bits(one, other, f"{where}[{number}]")
    else:
        assert first == second, where


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path in FEW else pytest.mark.nightly) for path in CONFIGS],
    ids=lambda path: path.stem,
)
def test_trains_tests_and_resumes(path: Path, data: dict[str, str], tmp_path: Path) -> None:
    cfg = small(path, {**data, "OUTPUT_DIR": str(tmp_path / "whole")})
    model = train(cfg)
    (outcome,) = evaluate(cfg, model.eval()).values()
    assert 0 <= outcome["metrics"]["bbox"]["AP"] <= 1

    again = tmp_path / "again"
    again.mkdir()
    for name in ("model_0000001.pth", "metrics.jsonl"):
        (again / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    (again / "last_checkpoint").write_text("model_0000001.pth")
    train(small(path, {**data, "OUTPUT_DIR": str(again)}), resume=True)

    whole, resumed = (io.load(folder / "model_final.pth") for folder in (tmp_path / "whole", again))
    assert whole["iteration"] == 2 and any(
        "momentum_buffer" in each or "exp_avg" in each for each in whole["optimizer"]["state"].values()
    )
    assert_same_bits(whole | {"config": ""}, resumed | {"config": ""}, "checkpoint")
    assert figures_of(tmp_path / "whole") == figures_of(again)


def weights_named_somewhere() -> dict[str, Path]:
    """The values of MODEL.WEIGHT and a file with each."""
    named = {load_config(path).MODEL.WEIGHT: path for path in CONFIGS}
    return {weight: path for weight, path in named.items() if weight}


@pytest.mark.parametrize("weight", sorted(weights_named_somewhere()))
def test_named_weights_can_be_found(weight: str) -> None:
    """Those to download by their names; those of a package, where it is installed, fill the whole body."""
    scheme, _, rest = weight.partition("://")
    if scheme != "package":
        assert locate(weight)[0].startswith("https://")
        return
    package = rest.split("/")[0]
    if not any(each.metadata["Name"] == package for each in importlib.metadata.distributions()):
        pytest.skip(f"pip install {package}")
    model = build_model(load_config(weights_named_somewhere()[weight], ["MODEL.DEVICE", "cpu"]), ["a"])
    report = load_weights(model, weight)
    assert not [name for name in report.missing if name.startswith("backbone.body")]
