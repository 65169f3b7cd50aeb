from __future__ import annotations

import pytest

from engine.config import changes, get_cfg

BEFORE = """\
OUTPUT_DIR: a
SOLVER:
  BASE_LR: 0.1
  STEPS: [3, 5]
  SCHEDULE: cosine
  KEY_OF_ANOTHER_VERSION: 1
DATASETS:
  TRAIN: [fabric_train]
"""


def _cfg(*pairs: object) -> object:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", "a", "SOLVER.BASE_LR", 0.1, "SOLVER.STEPS", (3, 5), "SOLVER.SCHEDULE", "cosine"])
    cfg.merge_from_list(["DATASETS.TRAIN", ("fabric_train",), *pairs])
    return cfg


def test_nothing_changed() -> None:
    """Tuples are lists in YAML, and keys that one of them lacks do not count."""
    assert changes(BEFORE, _cfg()) == []
    cfg = _cfg()
    assert changes(cfg.dump(), cfg) == []


def test_each_key_is_a_line() -> None:
    cfg = _cfg("SOLVER.BASE_LR", 0.01, "SOLVER.STEPS", (3,), "SOLVER.SCHEDULE", "poly", "OUTPUT_DIR", "b")
    assert sorted(changes(BEFORE, cfg)) == [
        "OUTPUT_DIR: a -> b",
        "SOLVER.BASE_LR: 0.1 -> 0.01",
        "SOLVER.SCHEDULE: cosine -> poly",
        "SOLVER.STEPS: [3, 5] -> [3]",
    ]


def test_free_mappings_are_one_value() -> None:
    """What was added, removed or changed in one shows."""
    groups = {"backbone.*": {"lr_factor": 0.1}}
    before = _cfg("SOLVER.PARAM_GROUPS", groups).dump()
    old = f"SOLVER.PARAM_GROUPS: {groups}"
    assert changes(before, _cfg()) == [f"{old} -> {{}}"]
    assert changes(_cfg().dump(), _cfg("SOLVER.PARAM_GROUPS", groups)) == [f"SOLVER.PARAM_GROUPS: {{}} -> {groups}"]
    more = {**groups, "*.bias": {"lr_factor": 2.0}}
    assert changes(before, _cfg("SOLVER.PARAM_GROUPS", more)) == [f"{old} -> {more}"]
    catalog = {"mine": {"img_dir": "a", "ann_file": "b.json"}}
    assert changes(before, _cfg("SOLVER.PARAM_GROUPS", groups, "DATASETS.CATALOG", catalog)) == [
        f"DATASETS.CATALOG: {{}} -> {catalog}"
    ]
    assert changes(before, _cfg("SOLVER.PARAM_GROUPS", groups)) == []


def test_order_of_parameter_groups_counts() -> None:
    groups = {"backbone.*": {"lr_factor": 0.1}, "*.bias": {"lr_factor": 2.0}}
    swapped = dict(reversed(groups.items()))
    before = _cfg("SOLVER.PARAM_GROUPS", groups).dump()
    assert changes(before, _cfg("SOLVER.PARAM_GROUPS", swapped)) == [f"SOLVER.PARAM_GROUPS: {groups} -> {swapped}"]
    assert changes(before, _cfg("SOLVER.PARAM_GROUPS", groups)) == []


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "a: [", "SOLVER: 3"])
def test_a_text_that_is_no_configuration_tells_nothing(text: str) -> None:
    assert changes(text, _cfg()) == []
