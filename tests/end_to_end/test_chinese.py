"""Chinese class names from the annotation file to checkpoint, tables, thresholds and pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.checkpoint import io
from engine.visualize.fonts import font_files, missing_characters
from tests.end_to_end.conftest import Trained, World, read_json, run, train_into

NAMES = ["破洞", "污渍", "断经", "结头", "浮线"]


def has_font(text: str) -> bool:
    return any(not missing_characters(path, frozenset(text)) for path in font_files())


@pytest.fixture(scope="module")
def cloth(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("chinese") / "布匹"
    size = ["--height", "96", "--width", "128", "--class-names", *NAMES]
    done = run(["datasets/generate_fabric.py", "--output", root, "--train", "8", "--val", "4", *size])
    assert done.returncode == 0, done.stderr
    return World(root, world.config)


@pytest.fixture(scope="module")
def chinese(cloth: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_into(cloth, tmp_path_factory.mktemp("chinese_run") / "run", "SOLVER.MAX_ITER", "2")


def test_names_are_in_all_that_a_run_leaves(chinese: Trained) -> None:
    assert io.load(chinese.model)["class_names"] == NAMES
    assert list(read_json(chinese.inference / "metrics.json")["per_class"]) == NAMES
    assert list(read_json(chinese.inference / "thresholds.json")["classes"]) == NAMES
    for text in (chinese.output + chinese.errors, (chinese.folder / "log.txt").read_text(encoding="utf-8")):
        assert all(name in text for name in NAMES)


def test_pictures_are_drawn_or_the_missing_font_is_named(cloth: World, chinese: Trained, tmp_path: Path) -> None:
    options = ["--weights", chinese.model, "--images-dir", cloth.root / "val", "--output-dir", tmp_path / "图"]
    done = run(cloth.command("demo/atss_demo.py", *options, "--threshold", "0.05"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "图").iterdir())) == 4
    assert all(name in done.stdout for name in NAMES)  # the table of counts
    told = done.stdout + done.stderr
    assert has_font("".join(NAMES)) != ("apt-get install fonts-noto-cjk" in told)


def test_without_a_locale(cloth: World, chinese: Trained, tmp_path: Path) -> None:
    """A bare container speaks ASCII; names must neither fail nor be lost."""
    environment = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    keys = ["MODEL.WEIGHT", chinese.model, "OUTPUT_DIR", tmp_path]
    done = run(cloth.command("tools/test_net.py", *keys), env=environment)
    assert done.returncode == 0, done.stderr
    assert list(read_json(tmp_path / "inference" / "fabric_val" / "metrics.json")["per_class"]) == NAMES
