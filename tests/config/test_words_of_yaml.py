"""Words that YAML 1.1 reads as something else than they say: the right value or one line, nowhere a silent other value.

The same in a file, in a list, in a tuple written as a string and on the command line.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.config import get_cfg, load_config
from engine.errors import InputError

ASK = {
    "SOLVER.MAX_ITER": [
        ("0o10", 8),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0b11", 3),
        ("+5", 5),
        ("0", 0),
        ("010", "must be an int, got '010'; write 10"),
        ("08", "must be an int, got '08'; write 8"),
        ("1:30", "must be an int, got '1:30'; write one plain number"),
        ("1e3", "must be an int, got '1e3'; write 1000"),
        ("yes", "must be an int, got 'yes'"),
        ("2026-11-27", "must be an int, got '2026-11-27'"),
        ("1" * 30, "must be 2147483647 or less, got "),
        ("0x" + "f" * 5000, "must be an int, got '0xfff"),
        ("9" * 5000, "must be an int, got '999"),
    ],
    "SOLVER.BASE_LR": [
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("1E-3", 0.001),
        ("1.5e3", 1500.0),
        ("010.5", 10.5),
        ("1_000.5", 1000.5),
        ("2", 2.0),
        ("010", "must be a float, got '010'; write 10.0"),
        ("1:30.5", "must be a float, got '1:30.5'; write one plain number"),
        ("1e400", "must be a float, got '1e400'"),
        ("nan", "must be a float, got 'nan'"),
    ],
    "SOLVER.COMPILE": [
        *((word, True) for word in ("on", "On", "ON", "yes", "Yes", "true", "TRUE", "True")),
        *((word, False) for word in ("off", "No", "NO", "false", "False")),
        ("y", "must be a bool, got 'y'"),
        ("010", "must be a bool, got '010'"),
    ],
    "OUTPUT_DIR": [(word, word) for word in ("010", "1:30", "no", "On", "2026-11-27", "0x1F", "1_000", "0o10")],
    "SOLVER.STEPS": [
        ("[1_000, 0x1000]", (1000, 4096)),
        ("[0o10, 20]", (8, 20)),
        ("(1_000, 0x1000)", (1000, 4096)),
        ("[010, 20]", "must be a tuple of int, got ['010', 20]; write (10, 20)"),
        ("(010, 20)", "must be a tuple of int, got '(010, 20)'; write (10, 20)"),
        ("[1:30, 100]", "must be a tuple of int, got ['1:30', 100]"),
    ],
    "SOLVER.HOOKS": [("[no, 010, 1_0, 2026-11-27]", ("no", "010", "1_0", "2026-11-27"))],
    "MODEL.RESNETS.STAGE_WITH_DCN": [("[no, yes, off, True]", (False, True, False, True))],
}
CASES = [(key, *case) for key, cases in ASK.items() for case in cases]


def _answer(path: str, opts: list[str], key: str) -> Any:
    """The value of the key, or the line of the mistake."""
    try:
        cfg = load_config(path, opts)
    except InputError as error:
        return str(error)
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


@pytest.mark.parametrize("key, word, expected", CASES, ids=[f"{key} {word[:12]}" for key, word, _ in CASES])
def test_a_word_is_what_it_says(write_config, key, word, expected):
    *groups, name = key.split(".")
    groups = groups[groups[:1] == ["MODEL"] :]  # the head of the file ends below MODEL
    depth = "  " * key.startswith("MODEL.")
    lines = [f"{depth}{'  ' * k}{group}:" for k, group in enumerate(groups)]
    text = "\n".join([*lines, f"{depth}{'  ' * len(groups)}{name}: {word}", "IMPORTS: ('json',)\n"])  # for the hooks
    answers = {f"my.yaml:{6 + len(groups)}": _answer(write_config(text), [], key)}
    if word[0] != "[":
        answers["command line"] = _answer(write_config(), [key, word], key)
    for where, answer in answers.items():
        if isinstance(expected, str) and key != "OUTPUT_DIR":
            assert answer.startswith(f"{where}: {key} {expected}"), answer
            assert "\n" not in answer and len(answer) < 200
        else:
            assert answer == expected and type(answer) is type(expected), where


def test_a_name_that_looks_like_a_number_or_a_bool(write_config):
    text = "DATASETS:\n  CATALOG:\n    no: {img_dir: 010, ann_file: 1:30}\n  TRAIN: [no]\n"
    cfg = load_config(write_config(text))
    assert cfg.DATASETS.TRAIN == ("no",) and dict(cfg.DATASETS.CATALOG["no"]) == {"img_dir": "010", "ann_file": "1:30"}


ARGUMENTS = [
    ("1_000", 1000),
    ("0x1F", 31),
    ("1e-3", 0.001),
    ("2026-11-27", "2026-11-27"),
    ("'010'", "010"),
    ("[a, 0o10]", ("a", 8)),
    ("010", "may be text or not, got '010'; write a plain number, True, False or \"text\""),
    ("1:30", "may be text or not, got '1:30'"),
    ("no", "may be text or not, got 'no'"),
    ("1" * 30, "must be a number of 64 bits, got 111"),
]


@pytest.mark.parametrize("word, expected", ARGUMENTS, ids=[word for word, _ in ARGUMENTS])
def test_where_nothing_tells_the_type_an_unclear_word_is_refused(write_config, word, expected):
    key = "MODEL.NECK.ARGS.mine"
    answers = {"my.yaml:8": _answer(write_config(f"  NECK:\n    ARGS:\n      mine: {word}\n"), [], key)}
    if word[0] != "[":
        answers["command line"] = _answer(write_config(), [key, word], key)
    for where, answer in answers.items():
        if isinstance(expected, str) and expected.startswith("m"):
            assert answer.startswith(f"{where}: {key} {expected}"), answer
        else:
            assert answer == expected and type(answer) is type(expected), where


def test_a_key_of_the_users_own_code_gets_plain_text(write_config):
    cfg = get_cfg()
    cfg.MODEL.set_new_allowed(True)
    cfg.merge_from_file(write_config("  MINE: 010\n"))
    assert type(cfg.MODEL.MINE) is str and cfg.MODEL.MINE == "010" and "MINE: '010'" in cfg.dump()


DUPLICATES = {
    "in a flow mapping": ("SOLVER: {GAMMA: 0.1, GAMMA: 0.2}\n", "6: duplicate key GAMMA, already given on line 6"),
    "in a catalog": (
        "DATASETS:\n  CATALOG:\n    a: {img_dir: b, ann_file: c}\n    a: {img_dir: b, ann_file: c}\n",
        "9: duplicate key a, already given on line 8",
    ),
    "quoted": ("SEED: 1\n'SEED': 2\n", "7: duplicate key SEED, already given on line 6"),
    "in a list": (
        "  NECK:\n    ARGS:\n      mine:\n      - a: 1\n        a: 2\n",
        "10: duplicate key a, already given on line 9",
    ),
    "under an alias": (
        "SOLVER: &s\n  GAMMA: 0.1\n  GAMMA: 0.2\nTEST: {}\n",
        "8: duplicate key GAMMA, already given on line 7",
    ),
}


@pytest.mark.parametrize("text, expected", DUPLICATES.values(), ids=DUPLICATES)
def test_a_key_twice_is_one_line_that_names_both(answer, text, expected):
    assert answer(text) == f"my.yaml:{expected}; keep one"
