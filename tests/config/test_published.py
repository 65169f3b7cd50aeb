"""The ten published set-ups: ours, the reference's own files, and their equality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from engine.config import load_config
from engine.config.tree import nested

FOLDER = Path(__file__).parents[2] / "configs" / "atss"
NAMES = [
    *(f"atss_{dcn}{body}.yaml" for dcn in ("", "dcnv2_") for body in (
        "R_50_FPN_1x", "R_101_FPN_1x", "R_101_FPN_2x", "X_101_32x8d_FPN_2x", "X_101_64x4d_FPN_2x"
    )),
]  # fmt: skip


def test_the_ten_are_there():
    assert {path.name for path in FOLDER.glob("atss_*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_ours_equals_the_reference(golden_dir, tmp_path, name):
    settings = json.loads((golden_dir / "atss" / "configs.json").read_text(encoding="utf-8"))
    (tmp_path / name).write_text(yaml.safe_dump(nested(settings[name])), encoding="utf-8")
    theirs, ours = load_config(tmp_path / name), load_config(FOLDER / name)
    assert ours == theirs
    assert ours.dump() == theirs.dump()


def test_the_reference_has_no_others(golden_dir):
    settings = json.loads((golden_dir / "atss" / "configs.json").read_text(encoding="utf-8"))
    assert set(settings) == set(NAMES)
