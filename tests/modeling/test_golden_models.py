"""The ten published set-ups build, with the reference's names, shapes, frozen parts and optimizer rates."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from engine.assembly.model import build_model
from engine.assembly.solver import build_optimizer
from engine.config import load_config

CONFIGS = sorted(p for p in Path("configs/atss").glob("*.yaml") if not p.name.startswith("_"))


@cache
def read_keys(path: Path) -> dict:
    return json.loads(path.read_text())


def test_all_ten_are_here() -> None:
    assert len(CONFIGS) == 10


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_names_shapes_frozen_and_rates(path: Path, golden_dir: Path) -> None:
    expected = read_keys(golden_dir / "atss" / "keys.json")[path.name]
    cfg = load_config(path, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: shape for name, shape, _ in expected["state_dict"] if ".cell_anchors." not in name}
    assert ours == theirs
    assert {name for name, _ in model.named_parameters()} == set(expected["named_parameters"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == set(expected["frozen_parameters"])

    names = {id(p): name for name, p in model.named_parameters()}
    rates = {
        names[id(p)]: (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"], group["dampening"])
        for group in build_optimizer(cfg, model).param_groups
        for p in group["params"]
    }
    assert rates == {name: tuple(figures) for name, *figures in expected["optimizer"]}
