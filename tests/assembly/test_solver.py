"""Lengths, learning rates and groups from the configuration."""

from __future__ import annotations

import logging
from fractions import Fraction
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.assembly.solver import RunLength, build_optimizer, run_length
from engine.config import get_cfg
from engine.errors import InputError
from engine.solver.optimizer import OPTIMIZERS

ONE_FOR_ALL = get_cfg()  # shared by all examples of hypothesis; each sets all keys that it reads


def test_length_in_iterations() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_ITER", 9, "SOLVER.STEPS", (3, 6), "SOLVER.VALIDATION.PERIOD", 4])
    assert run_length(cfg, 1000) == RunLength(9, (3, 6), Fraction(4))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"),
    [
        (100, 10, RunLength(120, (80, 110), Fraction(20))),
        (100, 16, RunLength(75, (50, 69), Fraction(25, 2))),
        (3, 16, RunLength(3, (2, 3), Fraction(3, 8))),
    ],
)
def test_length_in_epochs(num_images: int, batch_size: int, expected: RunLength) -> None:
    cfg = get_cfg()
    cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.STEPS_EPOCH, cfg.SOLVER.VALIDATION.PERIOD_EPOCH = 12, (8, 11), 2
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    assert run_length(cfg, num_images) == expected


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 30))
def test_an_epoch_is_a_pass(num_images: int, batch_size: int, epochs: int) -> None:
    cfg = ONE_FOR_ALL
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.VALIDATION.PERIOD_EPOCH = batch_size, epochs, 1
    length = run_length(cfg, num_images)
    assert 0 <= length.max_iter * batch_size - epochs * num_images < batch_size
    assert ceil(length.validation_period * epochs) == length.max_iter


@pytest.mark.parametrize(("reference", "batch", "rate"), [(0, 4, 0.01), (16, 4, 0.0025), (16, 32, 0.02), (4, 4, 0.01)])
def test_reference_batch(reference: int, batch: int, rate: float, caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH = 0.01, reference, batch
    logging.getLogger("engine").propagate = True
    with caplog.at_level(logging.INFO, logger="engine"):
        optimizer = build_optimizer(cfg, nn.Linear(1, 1, bias=False))
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(rate)
    said = [f"SOLVER.BASE_LR 0.01 for 16 images: {rate:g} for {batch}"] if rate != 0.01 else []
    assert caplog.messages == said


def test_every_key_of_the_groups_arrives() -> None:
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(1, 1, 1), nn.GroupNorm(1, 1))})})
    model["head"] = nn.ModuleDict({"offset": nn.Linear(1, 1)})
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.1, "SOLVER.WEIGHT_DECAY_BIAS", 0.2),
            *("SOLVER.WEIGHT_DECAY_NORM", 0.3, "SOLVER.BIAS_LR_FACTOR", 3.0, "SOLVER.DCONV_OFFSETS_LR_FACTOR", 5.0),
            *("SOLVER.BACKBONE_LR_FACTOR", 7.0, "SOLVER.LAYER_LR_FACTOR", 0.5, "SOLVER.MOMENTUM", 0.6),
        ]
    )
    optimizer = build_optimizer(cfg, model)
    names = {id(p): name for name, p in model.named_parameters()}
    figures = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert figures == {
        "backbone.body.0.weight": (7 * 0.25, 0.1),
        "backbone.body.0.bias": (3 * 7 * 0.25, 0.2),
        "backbone.body.1.weight": (7 * 0.5, 0.3),
        "backbone.body.1.bias": (3 * 7 * 0.5, 0.2),
        "head.offset.weight": (5.0, 0.1),
        "head.offset.bias": (15.0, 0.2),
    }
    assert optimizer.param_groups[0]["momentum"] == 0.6


def test_the_norms_decay_like_the_rest_by_default() -> None:
    optimizer = build_optimizer(get_cfg(), nn.GroupNorm(1, 1))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0005, 0.0]


def test_an_optimizer_of_the_users_own() -> None:
    class Lion(torch.optim.SGD):
        pass

    OPTIMIZERS.register("Lion")(Lion)
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "Lion"
    assert type(build_optimizer(cfg, nn.Linear(1, 1))) is Lion
    cfg.SOLVER.OPTIMIZER = "Loin"
    with pytest.raises(InputError, match="^SOLVER.OPTIMIZER: nothing is registered as Loin; did you mean Lion"):
        build_optimizer(cfg, nn.Linear(1, 1))
