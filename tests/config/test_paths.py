"""`~`, `$NAME` and `${NAME}` in every key that is a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import get_cfg, load_config
from engine.config.keys import KEYS
from engine.errors import InputError

PATHS = [name for name, key in KEYS.items() if key.type is Path]
FIELDS = [name for name, field in KEYS["DATASETS.CATALOG"].entries.fields.items() if field.type is Path]
NO_PATHS = {"MODEL.DEVICE", "MODEL.WEIGHT_SURGERY"}  # the other keys of any text


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)


def test_the_keys_that_are_paths():
    assert set(PATHS) == {"OUTPUT_DIR", "DATASETS.ROOT", "MODEL.WEIGHT"} and FIELDS == ["img_dir", "ann_file"]
    any_text = {name for name, key in KEYS.items() if key.type is str and not key.words}
    assert any_text <= NO_PATHS


def value_at(cfg, key):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


@pytest.mark.parametrize("key", [*PATHS, *(f"DATASETS.CATALOG.mine.{field}" for field in FIELDS)])
def test_a_path_key_is_expanded(write_config, key):
    entry = key.partition(".mine.")[0]  # an entry of the catalog needs both fields
    more = [word for field in FIELDS for word in (f"{entry}.mine.{field}", "x")] if ".mine." in key else []
    for text, expected in {"~/a": "/home/me/a", "$PLACE/a": "/data/a", "a/${PLACE}": "a//data"}.items():
        cfg = load_config(write_config(), [*more, key, text])
        assert value_at(cfg, key) == expected
    for text, reason in {
        "$NOWHERE/a": "the variable NOWHERE is not set; set it, or write the path itself",
        "~nobody-here": "there is no user nobody-here; write the path itself",
    }.items():
        with pytest.raises(InputError) as caught:
            load_config(write_config(), [*more, key, text])
        assert str(caught.value).splitlines()[0] == f"command line: {key} {text}: {reason}"


def test_paths_in_a_file_and_in_code(write_config):
    cfg = load_config(write_config("OUTPUT_DIR: ~/runs\nDATASETS:\n  ROOT: ${PLACE}\n"))
    assert (cfg.OUTPUT_DIR, cfg.DATASETS.ROOT) == ("/home/me/runs", "/data")
    again = load_config(write_config(cfg.dump(), head=""))
    assert again == cfg
    cfg = get_cfg()
    cfg.OUTPUT_DIR = "$PLACE/runs"
    cfg.freeze()
    assert cfg.OUTPUT_DIR == "/data/runs"


def test_home_alone_is_nothing_in_yaml(answer):
    nothing = 'OUTPUT_DIR must be a str, got nothing; write "", or "~" with the quotes for your home folder'
    assert answer("OUTPUT_DIR: ~\n") == f"my.yaml:6: {nothing}"


def test_base_files_and_the_file_itself(write_config, answer, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config("SEED: 1\n", name="base.yaml")
    assert load_config(write_config("_BASE_: ~/base.yaml\n", head="")).SEED == 1
    assert load_config("~/my.yaml").SEED == load_config("$HOME/my.yaml").SEED == 1
    assert answer("_BASE_: $NOWHERE/a.yaml\n").startswith(
        "my.yaml:6: _BASE_ $NOWHERE/a.yaml: the variable NOWHERE is not"
    )
