"""Mistakes in typing, and the one line that answers each of them."""

from __future__ import annotations

import pytest

from engine.config import get_cfg, load_config
from engine.errors import InputError

KEYS = {
    "a slip": ("  ATSS:\n    TOP_K: 9\n", "7: unknown key MODEL.ATSS.TOP_K; did you mean MODEL.ATSS.TOPK?"),
    "the wrong group": (
        "SOLVER:\n  USE_C5: False\n",
        "7: unknown key SOLVER.USE_C5; did you mean MODEL.RETINANET.USE_C5?",
    ),
    "lower case": (
        "solver:\n  GAMMA: 0.1\n",
        "6: unknown key solver; did you mean SOLVER?",
    ),
    "a short form": (
        "SOLVER:\n  LR: 0.1\n",
        "7: unknown key SOLVER.LR; did you mean SOLVER.BASE_LR?",
    ),
    "a long form": (
        "  ATSS:\n    INFERENCE_THRESHOLD: 0.1\n",
        "7: unknown key MODEL.ATSS.INFERENCE_THRESHOLD; did you mean MODEL.ATSS.INFERENCE_TH?",
    ),
    "a group's slip": (
        "  RETINA_NET:\n    USE_C5: False\n    NUM_CONVS: 3\n",
        "6: unknown key MODEL.RETINA_NET; did you mean MODEL.RETINANET?",
    ),
    "a group not indented": (
        "ATSS:\n  TOPK: 9\n",
        "6: unknown key ATSS; did you mean MODEL.ATSS?",
    ),
    "nothing like it": (
        "DATALOADER:\n  XYZ: 9\n",
        "7: unknown key DATALOADER.XYZ; DATALOADER has NUM_WORKERS, TIMEOUT, SIZE_DIVISIBILITY, "
        "ASPECT_RATIO_GROUPING, FILTER_EMPTY, REPEAT_THRESHOLD, EMPTY_SHARE",
    ),
    "dots": (
        "MODEL.ATSS.TOPK: 9\n",
        "6: MODEL.ATSS.TOPK has dots; in YAML groups are nested: MODEL: {ATSS: {TOPK: ...}}",
    ),
    "inheritance inside a group": (
        "SOLVER:\n  _BASE_: other.yaml\n",
        "7: _BASE_ belongs at the top level of a file, not in SOLVER",
    ),
}

VALUES = {
    "words for numbers": (
        "SOLVER:\n  STEPS: sixty thousand\n",
        "7: SOLVER.STEPS must be a tuple of int, got 'sixty thousand'",
    ),
    "no tuple in Python": (
        "SOLVER:\n  STEPS: (60000)\n",
        "7: SOLVER.STEPS must be a tuple of int, got '(60000)'; write (60000,)",
    ),
    "one wrong element": (
        "SOLVER:\n  STEPS: [60000, soon]\n",
        "7: SOLVER.STEPS must be a tuple of int, got [60000, 'soon']",
    ),
    "no pairs": (
        "TEST:\n  BBOX_AUG:\n    SCALE_RANGES: [0, 96]\n",
        "8: TEST.BBOX_AUG.SCALE_RANGES must be a tuple of pairs of int, got [0, 96]",
    ),
    "a float for an int": (
        "SOLVER:\n  MAX_ITER: 9e4\n",
        "7: SOLVER.MAX_ITER must be an int, got '9e4'; write 90000",
    ),
    "a bool for an int": (
        "SOLVER:\n  MAX_ITER: True\n",
        "7: SOLVER.MAX_ITER must be an int, got True",
    ),
    "an int for a bool": (
        "DATALOADER:\n  FILTER_EMPTY: 1\n",
        "7: DATALOADER.FILTER_EMPTY must be a bool, got 1; write True",
    ),
    "a decimal comma": (
        "SOLVER:\n  BASE_LR: 0,01\n",
        "7: SOLVER.BASE_LR must be a float, got '0,01'",
    ),
    "not a number": ("SOLVER:\n  BASE_LR: .nan\n", "7: SOLVER.BASE_LR must be a float, got nan"),
    "a number for a name": (
        "OUTPUT_DIR: 2024\n",
        '6: OUTPUT_DIR must be a str, got 2024; write "2024", with the quotes',
    ),
    "nothing": ("SOLVER:\n  BASE_LR:\n", "7: SOLVER.BASE_LR must be a float, got nothing"),
    "one name for several": (
        "DATASETS:\n  TRAIN: bccd_train\n",
        "7: DATASETS.TRAIN must be a tuple of str, got 'bccd_train'; write ('bccd_train',)",
    ),
    "a value for a group": (
        "SOLVER: 0.01\n",
        "6: SOLVER is a group of keys (MAX_ITER, MAX_EPOCH, OPTIMIZER, ...), got 0.01",
    ),
    "a group for a value": (
        "OUTPUT_DIR:\n  SOLVER: 1\n",
        "6: OUTPUT_DIR must be a str, got a group of keys",
    ),
    "a word's slip": (
        "  ATSS:\n    REGRESSION_TYPE: BOXES\n",
        "7: MODEL.ATSS.REGRESSION_TYPE must be one of BOX, POINT, got 'BOXES'; did you mean BOX?",
    ),
    "a length": (
        "INPUT:\n  MIN_SIZE_RANGE_TRAIN: [20]\n",
        "7: INPUT.MIN_SIZE_RANGE_TRAIN must have 2 entries (low and high), got (20,)",
    ),
    "a range": (
        "TEST:\n  THRESHOLD_IOU: 50\n",
        "7: TEST.THRESHOLD_IOU must be between 0 and 1, got 50.0",
    ),
}

CATALOG = {
    "no such field": (
        "DATASETS:\n  CATALOG:\n    mine:\n      img_dir: a\n      anno_file: b\n",
        "10: unknown key DATASETS.CATALOG.mine.anno_file; did you mean ann_file?",
    ),
    "a field is missing": (
        "DATASETS:\n  CATALOG:\n    mine:\n      img_dir: a\n",
        "8: DATASETS.CATALOG.mine lacks ann_file, its annotations",
    ),
    "no group": (
        "DATASETS:\n  CATALOG:\n    mine: a/b\n",
        "8: DATASETS.CATALOG.mine must be {img_dir: FOLDER, ann_file: FILE}, got 'a/b'",
    ),
    "no mapping": (
        "DATASETS:\n  CATALOG: [a, b]\n",
        "7: DATASETS.CATALOG must map names to {img_dir: FOLDER, ann_file: FILE}, got ['a', 'b']",
    ),
}

COMMAND_LINE = {
    "no value": (["SOLVER.GAMMA"], "expected KEY VALUE pairs, but SOLVER.GAMMA has no value"),
    "equals sign": (["SOLVER.GAMMA=0.2"], "SOLVER.GAMMA=0.2: write SOLVER.GAMMA 0.2, with a space"),
    "late option": (
        ["SOLVER.GAMMA", "0.2", "--resume"],
        "--resume is among the KEY VALUE pairs; options come before them",
    ),
    "a slip": (["SOLVER.GAMA", "1"], "unknown key SOLVER.GAMA; did you mean SOLVER.GAMMA?"),
    "a group's slip": (
        ["MODEL.ATS.TOPK", "1"],
        "unknown key MODEL.ATS.TOPK; did you mean MODEL.ATSS.TOPK?",
    ),
    "a type": (["SOLVER.GAMMA", "x"], "SOLVER.GAMMA must be a float, got 'x'"),
    "a group": (
        ["SOLVER", "x"],
        "SOLVER is a group of keys (MAX_ITER, MAX_EPOCH, OPTIMIZER, ...), got 'x'",
    ),
    "names without quotes": (
        ["DATASETS.TEST", "(a, b)"],
        "DATASETS.TEST must be a tuple of str, got '(a, b)'; each name needs quotes: ('a', 'b')",
    ),
    "half a data set": (
        ["DATASETS.CATALOG.mine.img_dir", "a"],
        "DATASETS.CATALOG.mine lacks ann_file, its annotations",
    ),
}


@pytest.mark.parametrize("text, expected", [*KEYS.values(), *VALUES.values(), *CATALOG.values()])
def test_mistake_in_a_file_is_answered_in_one_line(answer, text, expected):
    assert answer(text) == f"my.yaml:{expected}"


@pytest.mark.parametrize("opts, expected", COMMAND_LINE.values(), ids=COMMAND_LINE)
def test_mistake_on_the_command_line_is_answered_in_one_line(answer, opts, expected):
    assert answer(opts=opts) == f"command line: {expected}"


def test_all_mistakes_are_told_at_once(answer):
    told = answer("SOLVER:\n  GAMA: 1\n  BASE_LR: x\n", ("SEEDS", "1"))
    assert [line.partition(";")[0] for line in told.splitlines()] == [
        "my.yaml:7: unknown key SOLVER.GAMA",
        "my.yaml:8: SOLVER.BASE_LR must be a float, got 'x'",
        "command line: unknown key SEEDS",
    ]


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("SOLVER:\n  STEPS: (60000, 80000)\n", "SOLVER.STEPS", (60000, 80000)),
        ("SOLVER:\n  STEPS: [60000, 80000]\n", "SOLVER.STEPS", (60000, 80000)),
        ("SOLVER:\n  STEPS:\n  - 60000\n  - 80000\n", "SOLVER.STEPS", (60000, 80000)),
        ("SOLVER:\n  STEPS: ()\n", "SOLVER.STEPS", ()),
        ("SOLVER:\n  BASE_LR: 1e-4\n", "SOLVER.BASE_LR", 1e-4),
        ("SOLVER:\n  BASE_LR: 1\n", "SOLVER.BASE_LR", 1.0),
        ("INPUT:\n  PIXEL_STD: [1, 2e0, '3']\n", "INPUT.PIXEL_STD", (1.0, 2.0, 3.0)),
        ("OUTPUT_DIR: 2024-05-01\n", "OUTPUT_DIR", "2024-05-01"),
        ("OUTPUT_DIR: \"'quoted'\"\n", "OUTPUT_DIR", "quoted"),
        ("OUTPUT_DIR: (not, a, tuple)\n", "OUTPUT_DIR", "(not, a, tuple)"),
        ("SOLVER:\n", "SOLVER.GAMMA", 0.1),
    ],
)
def test_value_is_read_as_its_key_demands(write_config, text, key, value):
    got = _at(load_config(write_config(text)), key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "words, key, value",
    [
        (["SOLVER.AMP.ENABLED", "true"], "SOLVER.AMP.ENABLED", True),
        (["SOLVER.AMP.ENABLED", "False"], "SOLVER.AMP.ENABLED", False),
        (["SOLVER.STEPS", "6,8"], "SOLVER.STEPS", (6, 8)),
        (["MODEL.WEIGHT", ""], "MODEL.WEIGHT", ""),
        (["SOLVER.BASE_LR", 0.5], "SOLVER.BASE_LR", 0.5),
        (["SEED", "1", "SEED", "2"], "SEED", 2),
    ],
)
def test_command_line_goes_on_top(write_config, words, key, value):
    assert _at(load_config(write_config("SOLVER:\n  STEPS: [5]\n"), words), key) == value


def test_data_sets_merge_by_name(write_config):
    mine = {"img_dir": "a", "ann_file": "b"}
    path = write_config(f"DATASETS:\n  CATALOG:\n    mine: {mine}\n")
    opts = ["DATASETS.CATALOG.mine.ann_file", "c", "DATASETS.CATALOG", str({"other": mine})]
    catalog = load_config(path, opts).DATASETS.CATALOG
    assert catalog == {"mine": {"img_dir": "a", "ann_file": "c"}, "other": mine}


def test_mistake_changes_nothing():
    cfg = get_cfg()
    with pytest.raises(InputError):
        cfg.merge_from_list(["SEED", "3", "SED", "3"])
    assert cfg == get_cfg()


def _at(cfg, key):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a\nb", "1"], "unknown key a\\nb; the top level has "),
        (["a\tb\x1b[1m", "1"], "unknown key a\\tb\\x1b[1m; the top level has "),
        (["X" * 5000, "1"], f"unknown key {'X' * 117}...; the top level has "),
        (["-" + "x" * 5000, "1"], f"-{'x' * 116}... is among the KEY VALUE pairs"),
        (["X" * 5000 + "=1", "1"], f"{'X' * 117}...: write {'X' * 117}... 1, with a space"),
        (["SEED", "1", "X" * 5000], f"expected KEY VALUE pairs, but {'X' * 117}... has no value"),
        ([3, "1"], "expected a key, got 3"),
        (["MODEL.ATSS.SCORE", "x" * 5000], f"MODEL.ATSS.SCORE must be one of sqrt, product, class, got '{'x' * 56}..."),
        (
            ["DATASETS.CATALOG", "x" * 5000],
            "DATASETS.CATALOG must map names to {img_dir: FOLDER, ann_file: FILE}, got 'x",
        ),
        (["MODEL.NECK.ARGS", "x" * 5000], "MODEL.NECK.ARGS must map names of arguments to values, got 'x"),
    ],
)
def test_a_message_is_one_line_of_readable_length(words: list, line: str) -> None:
    with pytest.raises(InputError) as caught:
        get_cfg().merge_from_list(words)
    message = str(caught.value)
    assert message.startswith(f"command line: {line}") and message.isprintable() and len(message) < 400
