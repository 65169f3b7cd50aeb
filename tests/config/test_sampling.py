"""Keys of classes and sampling: `DATASETS.CLASS_MAP` and the shares of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import get_cfg, load_config
from engine.errors import InputError


def test_class_map_in_yaml_code_and_on_the_command_line(write_config, tmp_path: Path) -> None:
    path = write_config(
        'DATASETS:\n  CLASS_MAP:\n    dint: dent\n    rust v1.2: ""\n    dirt:\n    "7": seven\n    an: no\n'
    )
    cfg = load_config(path, ["DATASETS.CLASS_MAP.dirt", "stain", "DATASETS.CLASS_MAP.rust v1.2", "rust"])
    assert cfg.DATASETS.CLASS_MAP == {"dint": "dent", "rust v1.2": "rust", "dirt": "stain", "7": "seven", "an": "no"}
    assert load_config(path).DATASETS.CLASS_MAP["dirt"] == ""
    again = get_cfg()
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    again.merge_from_file(tmp_path / "dumped.yaml")
    assert again.DATASETS.CLASS_MAP == cfg.DATASETS.CLASS_MAP
    code = get_cfg()
    code.DATASETS.CLASS_MAP = {"a": "b", "c": None}
    code.freeze()
    assert code.DATASETS.CLASS_MAP == {"a": "b", "c": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  CLASS_MAP: {7: seven}", "7: 7 is not a key; a key is a name, quote it"),
        ("  CLASS_MAP: {seven: 7}", '7: DATASETS.CLASS_MAP.seven must be a str, got 7; write "7", with the quotes'),
        ("  CLASS_MAP: [a, b]", "7: DATASETS.CLASS_MAP must map names of classes to a name, or \"\", got ['a', 'b']"),
        ("  CLASS_MAP: {a: {b: c}}", '7: DATASETS.CLASS_MAP.a must be a name, or "", got a group of keys'),
        (
            '  CLASS_MAP:\n    "d\\u00e9faut": a\n    "de\\u0301faut ": b',
            "9: DATASETS.CLASS_MAP has the class d\u00e9faut twice, written in two ways; keep one",
        ),
        (
            "  CATALOG: {a: {img_dir: a, ann_file: b, repeat: 0}}",
            "7: DATASETS.CATALOG.a.repeat must be between 0.001 and 1000, got 0.0",
        ),
    ],
)
def test_mistakes_in_a_file(answer, text: str, expected: str) -> None:
    assert answer(f"DATASETS:\n{text}\n") == f"my.yaml:{expected}"


def test_shares(answer, write_config) -> None:
    key = "DATALOADER.EMPTY_SHARE"
    assert answer(opts=(key, "-0.5")) == f"command line: {key} is -0.5; it must be from 0 to 0.95, or -1 for off"
    assert answer(opts=(key, "1")) == f"command line: {key} must be between -1 and 0.95, got 1.0"
    told = answer(opts=(key, "0.2", "DATALOADER.FILTER_EMPTY", "True"))
    assert told.endswith(f"leaves out the images that {key} 0.2 asks for; write FILTER_EMPTY: False")
    assert load_config(write_config(), [key, "0", "DATALOADER.FILTER_EMPTY", "True"]).DATALOADER.EMPTY_SHARE == 0
    with pytest.raises(InputError, match="REPEAT_THRESHOLD must be between 0 and 1"):
        load_config(write_config(), ["DATALOADER.REPEAT_THRESHOLD", "1.5"])
