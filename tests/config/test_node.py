"""The methods of a yacs node, and what ours adds."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

from engine.config import CfgNode, get_cfg, load_config
from engine.errors import InputError


def test_get_cfg_gives_a_tree_of_its_own():
    cfg = get_cfg()
    cfg.MODEL.ATSS.TOPK = 3
    assert get_cfg().MODEL.ATSS.TOPK == 9


def test_load_config_is_frozen(write_config):
    cfg = load_config(write_config())
    with pytest.raises(AttributeError):
        cfg.SEED = 1
    with pytest.raises(AttributeError, match="frozen"):
        cfg.merge_from_list(["SEED", "1"])
    clone = cfg.clone()
    clone.defrost()
    clone.merge_from_list(["SEED", "1"])
    assert (clone.SEED, cfg.SEED) == (1, -1)


def test_dump_and_load_gives_the_same_tree(write_config):
    text = (
        "SOLVER: {STEPS: [1, 2], BASE_LR: 1e-4}\n"
        "DATASETS:\n  TRAIN: [a]\n  CATALOG: {a: {img_dir: b, ann_file: c}}\n"
        "TEST: {BBOX_AUG: {SCALES: [100, 200], SCALE_RANGES: [[0, 5], [1, 9]]}}\n"
    )
    cfg = load_config(write_config(text))
    again = load_config(write_config(cfg.dump(), head="", name="dumped.yaml"))
    assert again == cfg
    assert again.dump() == cfg.dump()
    assert type(again.TEST.BBOX_AUG.SCALE_RANGES[0]) is tuple


def test_copies_equal_the_tree(write_config):
    cfg = load_config(write_config())
    for twin in (cfg.clone(), copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        assert twin == cfg
        assert twin.is_frozen()
        assert isinstance(twin.MODEL, CfgNode)


def test_mistyped_name_in_code_is_refused():
    cfg = get_cfg()
    with pytest.raises(InputError, match="^in code: unknown key TOP_K; did you mean TOPK"):
        cfg.MODEL.ATSS.TOP_K = 3


def test_own_keys_can_be_added_as_in_yacs(write_config):
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.MINE = CfgNode({"WIDTH": 3})
    cfg.set_new_allowed(False)
    cfg.merge_from_file(write_config("MINE:\n  WIDTH: 5\n"))
    cfg.freeze()
    assert cfg.MINE.WIDTH == 5
    cfg.defrost()
    with pytest.raises(InputError, match="^command line: MINE.WIDTH must be an int, got 'x'$"):
        cfg.merge_from_list(["MINE.WIDTH", "x"])


def test_merge_from_other_cfg_is_strict():
    cfg, other = get_cfg(), get_cfg()
    other.SEED = 4
    cfg.merge_from_other_cfg(other)
    assert cfg == other
    with pytest.raises(InputError, match="^in code: unknown key SED; did you mean SEED"):
        cfg.merge_from_other_cfg(CfgNode({"SED": 4}))


def test_data_sets_can_be_declared_in_code():
    cfg = get_cfg()
    cfg.DATASETS.CATALOG = {"a": {"img_dir": "x", "ann_file": "y"}}
    cfg.DATASETS.CATALOG["b"] = {"img_dir": "x", "ann_file": "y"}
    cfg.freeze()
    assert "ann_file: y" in cfg.dump()
    cfg.defrost()
    cfg.DATASETS.CATALOG["c"] = {"img_dir": "x"}
    with pytest.raises(InputError, match="^in code: DATASETS.CATALOG.c lacks ann_file"):
        cfg.freeze()


def test_yacs_loader_that_runs_python_is_closed():
    with pytest.raises(NotImplementedError, match="load_config"):
        CfgNode.load_cfg("A: 1")


def test_importing_is_light():
    code = "import sys, engine.config; print(sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
