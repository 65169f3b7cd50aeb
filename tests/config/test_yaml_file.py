from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import load_config
from engine.config.yaml_file import read_chain
from engine.errors import InputError
from engine.shipped import shipped

CONFIGS = shipped("configs")
SYNTAX = {
    "tab": ("SOLVER:\n\tGAMMA: 1\n", "7: a tab character; indent with spaces"),
    "open list": (
        "SOLVER:\n  STEPS: [1, 2\n\nINPUT:\n",
        "7: YAML syntax: expected ',' or ']', but got ':' while parsing a flow sequence",
    ),
    "open quote": (
        "OUTPUT_DIR: 'x\n\n",
        "6: YAML syntax: found unexpected end of stream while scanning a quoted scalar",
    ),
    "missing colon": (
        "SOLVER:\n  BASE_LR 1\n  GAMMA: 2\n",
        "8: YAML syntax: there is a colon too many here, or one is missing on the line above",
    ),
    "unknown anchor": (
        "OUTPUT_DIR: *x\n",
        "6: YAML syntax: found undefined alias 'x'; a name that begins with * needs quotes",
    ),
    "duplicate key": (
        "SOLVER:\n  GAMMA: 0.1\n  GAMMA: 0.2\n",
        "8: duplicate key GAMMA, already given on line 7; keep one",
    ),
    "duplicate group": (
        "INPUT:\n  HUE: 0.1\nMODEL:\n  WEIGHT: x\n",
        "8: duplicate key MODEL, already given on line 1; keep one",
    ),
    "key that is no name": ("1: 2\n", "6: 1 is not a key; a key is a name, quote it"),
    "anchor inside itself": ("OUTPUT_DIR: &a [*a]\n", "6: an anchor that contains itself"),
    "character": ("OUTPUT_DIR: \x00\n", "6: a character that is not text; remove it"),
    "no path to inherit": ("_BASE_: [a, b]\n", "6: _BASE_ must be the path of one YAML file"),
    "itself": ("_BASE_: my.yaml\n", "6: _BASE_ leads back to itself: my.yaml -> my.yaml"),
    "no base": ("_BASE_: mine.yaml\n", f"6: _BASE_ mine.yaml: no such file, nor in {CONFIGS}"),
    "python base": (
        "_BASE_: base.py\n",
        "6: _BASE_ base.py: Python configurations are refused, since reading one runs it; "
        "write the keys in a YAML file",
    ),
}


@pytest.mark.parametrize("text, expected", SYNTAX.values(), ids=SYNTAX)
def test_what_is_no_yaml_is_answered_in_one_line(answer, text, expected):
    assert answer(text) == f"my.yaml:{expected}"


@pytest.mark.parametrize("text, kind", [("- 1\n", "a list"), ("hello\n", "the value 'hello'")])
def test_a_file_is_a_mapping(answer, text, kind):
    assert answer(text, head="") == f"my.yaml:1: expected lines KEY: value, got {kind}"


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.touch [SIDE_EFFECT]",
        "!!python/object/apply:os.system ['touch SIDE_EFFECT']",
        "!!python/name:os.system",
        "{a: {b: [!!python/object/new:os.system ['touch SIDE_EFFECT']]}}",
        "!mine x",
        "!!set {a, b}",
    ],
)
def test_tags_are_refused_and_not_run(answer, value):
    told = answer(f"OUTPUT_DIR: {value}\n")
    tag = "!" + value.partition("!")[2].split()[0]
    assert told == f"my.yaml:6: YAML tag {tag} is refused; a configuration holds plain values"
    assert not Path("SIDE_EFFECT").exists()


def test_a_python_file_is_refused_and_not_run(tmp_path):
    (tmp_path / "my.py").write_text(f"open({str(tmp_path / 'SIDE_EFFECT')!r}, 'w')\ncfg = {{}}\n")
    with pytest.raises(InputError, match=r"my\.py: Python configurations are refused"):
        load_config(tmp_path / "my.py")
    assert not (tmp_path / "SIDE_EFFECT").exists()


def test_missing_file_names_the_nearest(write_config):
    write_config(name="atss_R_50_FPN_1x.yaml")
    with pytest.raises(InputError) as caught:
        load_config("atss_R50_FPN_1x.yml")
    assert str(caught.value) == (
        f"atss_R50_FPN_1x.yml: no such file, nor in {CONFIGS}; did you mean atss_R_50_FPN_1x.yaml?"
    )


def test_missing_folder_names_the_nearest(write_config):
    Path("configs").mkdir()
    with pytest.raises(InputError) as caught:
        load_config("config/my.yaml")
    assert str(caught.value) == f"config/my.yaml: no such file, nor in {CONFIGS}; did you mean configs?"


def test_folder_and_binary_file_are_no_configurations(write_config):
    Path("folder").mkdir()
    Path("weights.pth").write_bytes(b"\x80\x02\xff\xfe")
    for path, reason in [
        ("folder", "cannot be read: Is a directory"),
        ("weights.pth", "not a text file in UTF-8"),
    ]:
        with pytest.raises(InputError) as caught:
            load_config(path)
        assert str(caught.value) == f"{path}: {reason}"


def test_base_files_come_first_relative_to_the_file(write_config):
    Path("base").mkdir()
    write_config("SOLVER: {GAMMA: 0.1, MOMENTUM: 0.1}\nSEED: 1\n", name="base/a.yaml")
    write_config("_BASE_: a.yaml\nSOLVER: {GAMMA: 0.2}\nSEED: 2\n", head="", name="base/b.yaml")
    path = write_config("SEED: 3\n_BASE_: base/b.yaml\n", head="")
    assert [file.path for file in read_chain(path)] == ["base/a.yaml", "base/b.yaml", "my.yaml"]
    cfg = load_config(path)
    assert (cfg.SEED, cfg.SOLVER.GAMMA, cfg.SOLVER.MOMENTUM) == (3, 0.2, 0.1)
    assert cfg.MODEL.ATSS_ON


def test_mistake_in_a_base_file_names_that_file(write_config, answer):
    Path("base").mkdir()
    write_config("SOLVER:\n  GAMA: 1\n", name="base/a.yaml")
    assert answer("_BASE_: base/a.yaml\n", head="") == (
        "base/a.yaml:7: unknown key SOLVER.GAMA; did you mean SOLVER.GAMMA?"
    )


def test_circle_of_files_is_an_error(write_config, answer):
    write_config("_BASE_: c.yaml\n", head="", name="b.yaml")
    write_config("_BASE_: ./b.yaml\n", head="", name="c.yaml")
    assert answer("_BASE_: b.yaml\n", head="") == ("c.yaml:1: _BASE_ leads back to itself: b.yaml -> c.yaml -> b.yaml")


def test_anchors_and_merge_keys_are_plain_yaml(write_config):
    text = "SOLVER: &s\n  STEPS: &n [10, 20]\nINPUT:\n  MIN_SIZE_TRAIN: *n\n"
    cfg = load_config(write_config(text))
    assert cfg.SOLVER.STEPS == cfg.INPUT.MIN_SIZE_TRAIN == (10, 20)
    text = "TEST: &t\n  IMS_PER_BATCH: 2\nSOLVER:\n  <<: *t\n  GAMMA: 0.5\n"
    assert load_config(write_config(text)).SOLVER.IMS_PER_BATCH == 2


@pytest.mark.parametrize("value", ["{{x: {0}, y: {0}}}", "[{0}, {0}]"])
@pytest.mark.parametrize("key", ["SEED", "IMPORTS", "SOLVER"])
def test_aliases_that_stand_for_millions_of_values(answer: Callable[..., str], key: str, value: str) -> None:
    lines = [f"a{k}: &a{k} {value.format(f'*a{k - 1}')}" for k in range(1, 40)]
    text = "\n".join(["a0: &a0 1", *lines, f"{key}: *a39"])
    assert answer(text) == "my.yaml: its anchors and aliases stand for more than 100000 values"


def test_aliases_of_a_usual_number(write_config: Callable[..., str]) -> None:
    path = write_config("SOLVER:\n  STEPS: &s [10, 20]\nTEST: {BBOX_AUG: {SCALES: *s}}\n")
    (file,) = read_chain(path)
    assert file.entries[2].value[0].value[0].value == [10, 20]


@pytest.mark.parametrize("base", ["/dev/zero", "pipe"])
def test_a_base_that_never_ends(answer: Callable[..., str], tmp_path: Path, base: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert answer(f"_BASE_: {base}\n") == f"my.yaml:6: _BASE_ {base}: not a file of text"


@pytest.mark.parametrize("escape", ["\\0", "\\n"])
def test_a_base_with_a_character_that_no_path_has(answer: Callable[..., str], escape: str) -> None:
    assert answer(f'_BASE_: "a{escape}b"\n') == "my.yaml:6: _BASE_ must be the path of one YAML file"


def test_a_pipe_on_the_command_line(tmp_path: Path) -> None:
    """`--config-file <(...)` of a shell."""
    reader, writer = os.pipe()
    os.write(writer, b"SEED: 5")
    os.close(writer)
    (file,) = read_chain(f"/dev/fd/{reader}")
    assert file.entries[0].value == 5
    os.close(reader)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Writes configurations of the package, which lies apart from the working folder."""
    monkeypatch.setattr("engine.shipped._INSTALLED", tmp_path / "site-packages")
    folder = tmp_path / "site-packages" / "configs" / "parts"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text("SEED: 7\n")
    (folder / "next.yaml").write_text("_BASE_: base.yaml\n")
    return folder.parent


def seed(path: str) -> int:
    return next(entry.value for file in read_chain(path) for entry in file.entries)


@pytest.mark.parametrize("base", ["parts/base.yaml", "./parts/base.yaml", "parts/next.yaml", "a/../parts/base.yaml"])
def test_a_base_is_looked_up_in_the_package(write_config, packaged, base):
    Path("far").mkdir()
    assert seed(write_config(f"_BASE_: {base}\n", head="", name="far/my.yaml")) == 7
    assert seed(base) == 7


def test_a_file_goes_before_one_of_the_package(write_config, packaged):
    Path("parts").mkdir()
    write_config("SEED: 1\n", head="", name="parts/base.yaml")
    assert seed(write_config("_BASE_: parts/base.yaml\n", head="")) == 1
    assert seed("parts/base.yaml") == 1
    assert seed("parts/next.yaml") == 7  # its base stands beside it


@pytest.mark.parametrize(
    "name, expected",
    [
        ("parts/bas.yaml", "parts/bas.yaml: no such file, nor in {}; did you mean parts/base.yaml?"),
        ("part/base.yaml", "part/base.yaml: no such file, nor in {}; did you mean parts?"),
        ("configs/parts/base.yaml", "configs/parts/base.yaml: no such file, nor in {}; did you mean parts/base.yaml?"),
        ("parts", "parts: no such file, nor in {}"),
        ("nothing/at/all.yaml", "nothing/at/all.yaml: no such file, nor in {}"),
        ("parts/../../configs/parts/base.yaml", "../configs/parts/base.yaml: no such file"),
        ("../configs/parts/base.yaml", "../configs/parts/base.yaml: no such file"),
        ("/parts/base.yaml", "/parts/base.yaml: no such file"),
    ],
)
def test_a_missing_file_names_both_places(answer, packaged, name, expected):
    assert answer(f"_BASE_: {name}\n", head="").startswith(f"my.yaml:1: _BASE_ {expected.format(packaged)}")
    if not os.path.isabs(name):
        assert (f"nor in {packaged}" in answer(f"_BASE_: {name}\n", head="")) == ("nor in" in expected)


def test_a_broken_link_is_no_reason_to_look_elsewhere(answer, packaged):
    Path("parts").mkdir()
    Path("parts/base.yaml").symlink_to("nowhere")
    assert answer("_BASE_: parts/base.yaml\n", head="").startswith("my.yaml:1: _BASE_ parts/base.yaml: no such file")
