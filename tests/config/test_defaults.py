"""Our tree against the reference's, key by key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from engine.config import defaults, defaults_model, foreign_keys, get_cfg
from engine.config.coerce import coerce
from engine.config.schema import FREE_KEYS, LENGTHS, NOT_EMPTY, RANGES, WORDS, leaves, type_of

OURS = dict(leaves(get_cfg()))


@pytest.mark.parametrize("module", [defaults, defaults_model])
def test_every_key_has_a_comment_above_it(module):
    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        if re.match(r"_C\.[\w.]+ = (?!CN\(\)|MODEL)", line):
            assert above.startswith("# "), line


def test_every_default_passes_its_own_checks():
    for key, value in OURS.items():
        if key not in FREE_KEYS:
            type_ = type_of(key, value)
            assert type_ is not None, key
            coerced = coerce(key, value, type_)
            assert coerced == value and type(coerced) is type(value), key


def test_tables_name_known_keys():
    for table in (WORDS, RANGES, LENGTHS, NOT_EMPTY):
        assert set(table) <= set(OURS)
    assert all(OURS[key] in words.allowed for key, words in WORDS.items())


def test_optimizers_are_those_of_torch():
    known = {
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and value is not torch.optim.Optimizer
    }
    special = {"LBFGS", "SparseAdam", "Muon"}  # a closure, sparse gradients, matrices only
    assert known - special <= set(WORDS["SOLVER.OPTIMIZER"].allowed)


def test_defaults_equal_the_reference(golden_dir):
    text = (golden_dir / "atss" / "defaults.yaml").read_text(encoding="utf-8")
    reference = dict(leaves(yaml.safe_load(text)))
    assert len(reference) > 200
    for key, value in reference.items():
        if key in OURS:
            ours = OURS[key]
            assert (list(ours) if isinstance(ours, tuple) else ours) == value, key
        else:
            row = foreign_keys.find(key)
            assert row is not None and row.harmless(value), key


def test_a_dump_of_the_reference_loads(golden_dir):
    cfg = get_cfg()
    cfg.merge_from_file(golden_dir / "atss" / "defaults.yaml")
    assert cfg == get_cfg()
