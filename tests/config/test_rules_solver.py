"""Rules between the keys of SOLVER, and the mapping SOLVER.PARAM_GROUPS."""

from __future__ import annotations

import pytest

from engine.config import get_cfg, load_config
from engine.errors import InputError

BROKEN = {
    "epochs": ("STEPS_EPOCH: [8, 8]", "7: SOLVER.STEPS_EPOCH must increase, got (8, 8)"),
    "milestones of another schedule": (
        "{SCHEDULE: cosine, STEPS_EPOCH: [8]}",
        "7: SOLVER.STEPS_EPOCH is for multistep, but SOLVER.SCHEDULE is cosine; remove one of them",
    ),
    "two rises": (
        "{WARMUP_ITERS: 9, SCHEDULE: one_cycle}",
        "7: SOLVER.SCHEDULE one_cycle has its own warm-up, but SOLVER.WARMUP_ITERS is 9; write 0",
    ),
    "two rises, one of them by default": (
        "SCHEDULE: cyclic",
        "7: SOLVER.SCHEDULE cyclic has its own warm-up, but SOLVER.WARMUP_ITERS is 500; write 0",
    ),
    "momentum of no cycle": (
        "CYCLE: {PEAK_MOMENTUM: 0.85}",
        "7: SOLVER.CYCLE.PEAK_MOMENTUM is 0.85, but SOLVER.SCHEDULE multistep does not change the momentum; write 0",
    ),
    "a rise from nothing": (
        "{WARMUP_METHOD: exponential, WARMUP_FACTOR: 0}",
        "7: SOLVER.WARMUP_METHOD exponential never leaves SOLVER.WARMUP_FACTOR 0.0; write 0.001",
    ),
    "half a decay": (
        "WEIGHT_DECAY_NORM: -0.5",
        "7: SOLVER.WEIGHT_DECAY_NORM must be 0 or more, or -1 for WEIGHT_DECAY, got -0.5",
    ),
    "passes": (
        "{IMS_PER_BATCH: 8, ACCUMULATE: 3}",
        "7: SOLVER.IMS_PER_BATCH 8 cannot be divided evenly into SOLVER.ACCUMULATE 3 passes; change one of them",
    ),
    "a pattern for nothing": (
        "PARAM_GROUPS: {'*.bias': {}}",
        "7: SOLVER.PARAM_GROUPS.*.bias changes nothing; write lr_factor or weight_decay below it",
    ),
    "an unknown field": (
        "PARAM_GROUPS: {'*.bias': {lr_factr: 1}}",
        "7: unknown key SOLVER.PARAM_GROUPS.*.bias.lr_factr; did you mean lr_factor?",
    ),
    "a field like none": (
        "PARAM_GROUPS: {'*.bias': {momentum: 1}}",
        "7: unknown key SOLVER.PARAM_GROUPS.*.bias.momentum; SOLVER.PARAM_GROUPS.*.bias has lr_factor, weight_decay",
    ),
    "a negative rate": (
        "PARAM_GROUPS: {'*.bias': {lr_factor: -1}}",
        "7: SOLVER.PARAM_GROUPS.*.bias.lr_factor must be 0 or more, got -1.0",
    ),
    "no number": (
        "PARAM_GROUPS: {'*.bias': {weight_decay: none}}",
        "7: SOLVER.PARAM_GROUPS.*.bias.weight_decay must be a float, got 'none'",
    ),
    "a number for a group": (
        "PARAM_GROUPS: {'*.bias': 0.1}",
        "7: SOLVER.PARAM_GROUPS.*.bias must be {lr_factor: NUMBER, weight_decay: NUMBER}, got 0.1",
    ),
    "a list for a mapping": (
        "PARAM_GROUPS: [backbone]",
        "7: SOLVER.PARAM_GROUPS must map patterns of names to {lr_factor: NUMBER, weight_decay: NUMBER}, "
        "got ['backbone']",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_broken_rule_is_answered_in_one_line(answer, text, expected):

    assert answer(f"SOLVER:\n  {text}\n") == f"my.yaml:{expected}"


@pytest.mark.parametrize(
    "text",
    [
        "{MAX_EPOCH: 12, MAX_ITER: 90000, STEPS_EPOCH: [8, 11]}",
        "{SCHEDULE: one_cycle, WARMUP_ITERS: 0, CYCLE: {PEAK_MOMENTUM: 0.85}}",
        "{SCHEDULE: poly, WARMUP_METHOD: exponential}",
        "{WARMUP_METHOD: exponential, WARMUP_FACTOR: 0, WARMUP_ITERS: 0}",
        "{WEIGHT_DECAY_NORM: 0, IMS_PER_BATCH: 8, ACCUMULATE: 4}",
    ],
)
def test_what_goes_together(write_config, text):
    load_config(write_config(f"SOLVER: {text}\n"))


def test_a_schedule_of_the_users_own_may_read_any_key(write_config):
    text = "IMPORTS: [my.schedule]\nSOLVER: {SCHEDULE: staircase, STEPS_EPOCH: [2], CYCLE: {PEAK_MOMENTUM: 0.5}}\n"
    assert load_config(write_config(text)).SOLVER.SCHEDULE == "staircase"


def test_groups_merge_by_pattern_and_keep_their_order(write_config):
    text = "SOLVER: {PARAM_GROUPS: {'rpn.*': {lr_factor: 2}, 'backbone.body.*': {lr_factor: 1e-1}}}\n"
    opts = [
        *("SOLVER.PARAM_GROUPS.rpn.*.weight_decay", "0", "SOLVER.PARAM_GROUPS.*.bias.lr_factor", "3"),
        *("SOLVER.PARAM_GROUPS", "{'*.scales.*': {'weight_decay': 0.5}}"),
    ]
    cfg = load_config(write_config(text), opts)
    expected = {
        "rpn.*": {"lr_factor": 2.0, "weight_decay": 0.0},
        "backbone.body.*": {"lr_factor": 0.1},
        "*.bias": {"lr_factor": 3.0},
        "*.scales.*": {"weight_decay": 0.5},
    }
    groups = cfg.SOLVER.PARAM_GROUPS
    assert groups == expected
    again = load_config(write_config(cfg.dump(), head="", name="dumped.yaml"))
    assert again == cfg and again.dump() == cfg.dump()
    assert list(again.SOLVER.PARAM_GROUPS) == list(expected)
    assert all(type(value) is float for fields in again.SOLVER.PARAM_GROUPS.values() for value in fields.values())


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        (
            ("SOLVER.PARAM_GROUPS.backbone.*", "0.1"),
            "unknown key SOLVER.PARAM_GROUPS.backbone.*; SOLVER.PARAM_GROUPS.backbone has lr_factor, weight_decay",
        ),
        (
            ("SOLVER.PARAM_GROUPS.lr_factor", "0.1"),
            "SOLVER.PARAM_GROUPS.lr_factor is incomplete; write SOLVER.PARAM_GROUPS.NAME.lr_factor or .weight_decay",
        ),
        (
            ("SOLVER.PARAM_GROUPS.backbone.*.lr_factor", "-2"),
            "SOLVER.PARAM_GROUPS.backbone.*.lr_factor must be 0 or more, got -2.0",
        ),
        (
            ("DATASETS.CATALOG.mine", "a.json"),
            "DATASETS.CATALOG.mine is incomplete; write DATASETS.CATALOG.NAME.img_dir or .ann_file or .format"
            " or .unlisted_are_empty or .type or .repeat",
        ),
    ],
)
def test_mistakes_on_the_command_line(answer, opts, expected):
    assert answer(opts=opts) == f"command line: {expected}"


def test_groups_set_in_code_are_checked():
    cfg = get_cfg()
    cfg.SOLVER.PARAM_GROUPS = {"backbone.*": {"lr_factor": 1}}
    cfg.SOLVER.PARAM_GROUPS["*.bias"] = {"weight_decay": 0}
    cfg.freeze()
    assert cfg.SOLVER.PARAM_GROUPS == {"backbone.*": {"lr_factor": 1.0}, "*.bias": {"weight_decay": 0.0}}
    cfg.defrost()
    cfg.SOLVER.PARAM_GROUPS["*.bias"]["lr_factor"] = -1
    with pytest.raises(InputError, match=r"^in code: SOLVER.PARAM_GROUPS.\*.bias.lr_factor must be 0 or more, got -1"):
        cfg.freeze()
