"""Our tree against the reference's, key by key."""

from __future__ import annotations

import math

import torch
import yaml

from engine.config import foreign_keys, get_cfg
from engine.config.coerce import check_words, read
from engine.config.keys import GROUPS, KEYS
from engine.config.tree import leaves

OURS = dict(leaves(get_cfg()))


def test_the_tree_holds_the_declared_keys_in_their_order():
    assert list(OURS) == list(KEYS)


def test_every_key_is_documented():
    assert all(key.doc.endswith((".", ".)")) for key in KEYS.values())
    assert all(any(key.startswith(f"{group}.") for key in KEYS) for group in GROUPS)


def test_every_default_passes_its_own_checks():
    for name, key in KEYS.items():
        assert key.type is not None, name
        if key.type is not dict:
            coerced = read(key, key.default)
            assert coerced == key.default and type(coerced) is type(key.default), name
            check_words(key, coerced)


def test_declarations_are_of_the_right_form():
    for name, key in KEYS.items():
        assert key.limits is None or -math.inf < key.limits[0] < key.limits[1], name
        assert key.words is None or key.type in (str, tuple[str, ...]), name
        assert not (key.length or key.not_empty) or isinstance(key.default, tuple), name


def test_optimizers_are_those_of_torch():
    known = {
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and value is not torch.optim.Optimizer
    }
    special = {"LBFGS", "SparseAdam", "Muon"}  # a closure, sparse gradients, matrices only
    assert known - special <= set(KEYS["SOLVER.OPTIMIZER"].words.names)


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
            assert row is not None and row.is_harmless(value), key


def test_a_dump_of_the_reference_loads(golden_dir):
    cfg = get_cfg()
    cfg.merge_from_file(golden_dir / "atss" / "defaults.yaml")
    assert cfg == get_cfg()
