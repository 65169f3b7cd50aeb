from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "generate_fabric.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_fabric", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fabric = _load()


def _generate(folder: Path, *options: str) -> dict:
    """Generate 6 + 2 small pictures; returns the training annotations."""
    sizes = ["--train", "6", "--val", "2", "--height", "128", "--width", "160"]
    fabric.main(["--output", str(folder), *sizes, *options])
    return json.loads((folder / "annotations" / "instances_train.json").read_text("utf-8"))


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _generate(tmp_path / name, "--seed", "3")
    _generate(tmp_path / "c", "--seed", "4")
    assert len(_digests(tmp_path / "a")) == 10
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
    assert _digests(tmp_path / "a") != _digests(tmp_path / "c")


def test_more_images_keep_the_first(tmp_path: Path) -> None:
    _generate(tmp_path / "few")
    _generate(tmp_path / "many", "--train", "9")
    few, many = _digests(tmp_path / "few" / "train"), _digests(tmp_path / "many" / "train")
    assert len(many) == 9
    assert few.items() <= many.items()


def test_fewer_images_leave_no_old_ones(tmp_path: Path) -> None:
    _generate(tmp_path)
    _generate(tmp_path, "--train", "2")
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_annotations_are_coco(tmp_path: Path) -> None:
    names = ["破洞", "污渍", "断经", "结头", "浮织"]
    data = _generate(tmp_path, "--class-names", *names)
    assert [category["name"] for category in data["categories"]] == names
    coco = COCO(str(tmp_path / "annotations" / "instances_train.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = cv2.imread(str(tmp_path / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            x, y, width, height = annotation["bbox"]
            assert min(x, y) >= 0 and x + width <= image["width"] and y + height <= image["height"]
            assert annotation["area"] == width * height > 0


def test_every_kind_and_empty_images_occur() -> None:
    counts, empty, ratios = np.zeros(5, int), 0, []
    for k in range(150):
        _, defects = fabric.draw_image(np.random.default_rng([0, 0, k]), 256, 320, 50.0)
        empty += not defects
        for kind, (_, _, width, height) in defects:
            counts[kind] += 1
            if fabric.CLASS_NAMES[kind] == "broken_thread":
                ratios.append(max(width / height, height / width))
            if fabric.CLASS_NAMES[kind] == "knot":
                assert min(width, height) >= 5 and max(width, height) <= 15
    assert counts.min() >= 30
    assert 5 <= empty <= 30
    assert 20 < max(ratios) <= 50


def test_max_ratio_limits_threads() -> None:
    rng = np.random.default_rng(0)
    kind = fabric.CLASS_NAMES.index("broken_thread")
    sizes = [fabric.defect_size(rng, kind, 256, 8.0) for _ in range(100)]
    assert max(max(size) / min(size) for size in sizes) <= 8


@pytest.mark.parametrize("kind", range(5))
def test_a_defect_changes_the_pixels_of_its_box_only(kind: int) -> None:
    rng = np.random.default_rng(5)
    threads = fabric.lay_threads(rng, 96, 96)
    before = fabric.shade(threads)
    after = before.copy()
    height, width = (8, 60) if fabric.CLASS_NAMES[kind] == "broken_thread" else (24, 24)
    window = (slice(20, 20 + height), slice(10, 10 + width))
    cover = fabric.DRAWERS[kind](rng, after, threads, window)
    changed = np.abs(after - before).max(-1) > 0.05
    x, y, box_width, box_height = fabric.bounds(cover >= fabric.VISIBLE, window)
    inside = changed[y : y + box_height, x : x + box_width].sum()
    assert changed[window].sum() == changed.sum()
    assert inside >= 0.9 * changed.sum()
    assert inside >= 0.3 * box_width * box_height


@pytest.mark.parametrize(
    ("pixels", "box"),
    [
        ([(0, 0)], [7, 5, 1, 1]),
        ([(1, 2), (3, 1)], [8, 6, 2, 3]),
        ([(0, 0), (3, 3)], [7, 5, 4, 4]),
        ([], None),
    ],
)
def test_bounds(pixels: list[tuple[int, int]], box: list[int] | None) -> None:
    mask = np.zeros((4, 4), bool)
    for row, column in pixels:
        mask[row, column] = True
    assert fabric.bounds(mask, (slice(5, 9), slice(7, 11))) == box


@pytest.mark.parametrize(
    "options",
    [["--height", "20"], ["--train", "-1"], ["--class-names", "a", "a", "b", "c", "d"]],
)
def test_bad_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        fabric.parse_arguments(options)
    assert "error: " in capsys.readouterr().err
