"""Parts by name: found, misspelt, and those of a user's module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.assembly.model import build_backbone, build_model
from engine.config import get_cfg
from engine.errors import InputError
from engine.registry import Registry, call_with, import_modules, lookup, taken_by

PARTS = Registry("PARTS")


@PARTS.register("wheel")
def wheel() -> None: ...


@PARTS.register("wing")
def wing() -> None: ...


def test_a_part_is_found() -> None:
    assert lookup(PARTS, "wheel", "MODEL.PART") is wheel


@pytest.mark.parametrize(("name", "hint"), [("weel", "did you mean wheel?"), ("rudder", "there is wheel, wing")])
def test_a_slip_is_one_line_with_the_way_out(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        lookup(PARTS, name, "MODEL.PART")
    assert str(caught.value).startswith(f"MODEL.PART: nothing is registered as {name}; {hint}")
    assert "\n" not in str(caught.value)


def pipe(length: int, *, width: int = 2, hue: str = "grey") -> tuple[int, int, str]:
    return length, width, hue


def bag(**contents: int) -> dict[str, int]:
    return contents


def test_arguments_are_passed() -> None:
    assert call_with(pipe, "pipe", {"width": 3}, "PART.ARGS", {"length": 1}) == (1, 3, "grey")
    assert call_with(bag, "bag", {"x": 3}, "PART.ARGS") == {"x": 3}  # takes anything
    assert taken_by(pipe, {"hue": "red", "norm": "GN"}) == {"hue": "red"}
    assert taken_by(bag, {"norm": "GN"}) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widht": 3}, "PART.ARGS.widht: pipe takes no such argument; did you mean width?"),
        ({"zzz": 3}, "PART.ARGS.zzz: pipe takes no such argument; it takes width, hue"),
        ({"length": 3}, "PART.ARGS.length: pipe gets this argument from the engine; remove it"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call_with(pipe, "pipe", arguments, "PART.ARGS", {"length": 1})
    assert str(caught.value) == message


def test_a_missing_argument_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^PART\.ARGS: pipe needs a value for length$"):
        call_with(pipe, "pipe", {"width": 3}, "PART.ARGS")


def test_a_name_is_registered_once_and_by_a_string() -> None:
    with pytest.raises(InputError, match="PARTS: wheel is registered already, in .*; rename yours"):
        PARTS.register("wheel")(wing)
    with pytest.raises(InputError, match=r'PARTS: write @PARTS.register\("NAME"\) above '):
        PARTS.register(wing)  # fvcore's form, which would register nothing here


def test_values_that_a_part_cannot_take_are_one_line() -> None:
    def tower(width: Any) -> list[int]:
        return [0] * int(width)

    with pytest.raises(InputError, match="^MODEL.ARGS: tower cannot be built with {'width': 'x'}: invalid literal"):
        call_with(tower, "tower", {"width": "x"}, "MODEL.ARGS")


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("count", "3", "a whole number"),
        ("count", 3.0, "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "a whole number"),
        ("limit", "3", "a whole number or null"),
        ("factor", [1], "a number"),
        ("factor", False, "a number"),
        ("is_on", "no", "True or False"),
        ("is_on", 1, "True or False"),
        ("word", 3, "a word"),
    ],
)
def test_a_value_of_another_type_is_one_line(argument: str, value: object, words: str) -> None:
    def part(
        count: int = 1,
        limit: int | None = None,
        factor: float = 1.0,
        is_on: bool = True,
        word: str = "",
        more: Sequence[int] = (),
    ) -> tuple[object, ...]:
        return count, limit, factor, is_on, word, more

    with pytest.raises(InputError) as caught:
        call_with(part, "part", {argument: value}, "PART.ARGS")
    end = f"{argument} must be {words}, got {value!r}"
    assert str(caught.value) == f"PART.ARGS: part cannot be built with {{{argument!r}: {value!r}}}: {end}"
    right = {"count": 2, "limit": None, "factor": 3, "is_on": False, "word": "x", "more": "anything"}
    assert call_with(part, "part", right, "PART.ARGS") == (2, None, 3, False, "x", "anything")


def test_arguments_go_before_what_is_offered() -> None:
    offered = {"width": 3, "hue": "red", "norm": "GN"}
    assert call_with(pipe, "pipe", {"width": 4}, "PART.ARGS", {"length": 1}, offered) == (1, 4, "red")


def test_modules_come_from_the_working_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_part_of_this_test.py").write_text("VALUE = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    import_modules(["own_part_of_this_test"])
    assert sys.modules.pop("own_part_of_this_test").VALUE == 1
    with pytest.raises(InputError, match=r"^IMPORTS: cannot import no_such_module"):
        import_modules(["no_such_module"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", r"SyntaxError: .* \(.*faulty_part.py, line 1\)"),
        ("x = {}\nx['lr']\n", r"KeyError: 'lr' \(.*faulty_part.py, line 2\)"),
        ("raise RuntimeError('one\\ntwo')\n", r"RuntimeError: one\\ntwo \(.*faulty_part.py, line 1\)"),
        ("import sys; sys.exit(3)\n", r"SystemExit: 3 \(.*line 1\)"),
        ("assert False\n", r"AssertionError \(.*line 1\)"),
        ("import no_such_package\n", r"ModuleNotFoundError: No module named 'no_such_package' \(.*line 1\)"),
        ("from engine.registry import Registri\n", r"ImportError: cannot import name 'Registri' .*line 1\)"),
        ("from engine.layers.norm import NORMS\nNORMS.register('GN')(int)\n", "NORMS: GN is registered already, in "),
    ],
)
def test_a_module_that_fails_is_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_part.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty_part", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=rf"^(?!.*\n)IMPORTS: cannot import faulty_part: {message}"):
        import_modules(["faulty_part"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.BACKBONE.CONV_BODY", "tiny-FPN-RETINANET"),
        ("MODEL.ATSS.POSITIVE_TYPE", "nearby"),
        ("MODEL.ROI_BOX_HEAD.BBOX_LOSS", "smoothl1"),
        ("MODEL.ROI_HEADS.SAMPLER", "ohm"),
    ],
)
def test_open_words_are_answered_when_the_model_is_built(key: str, value: str) -> None:
    """With IMPORTS any word may be right, so the configuration lets it pass."""
    cfg = get_cfg()
    cfg.merge_from_list(["IMPORTS", "('json',)", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.CONV_BODY", "R-18-FPN"])
    cfg.merge_from_list(["MODEL.ATSS_ON", "True", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", "0"])  # ATSS proposes
    cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPFeatureExtractor", key, value])
    with pytest.raises(InputError, match=f"^{key}: nothing is registered as {value.split('-')[0]}; "):
        build_model(cfg, ["a"])


def test_a_depth_that_no_resnet_has() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["IMPORTS", "('json',)", "MODEL.BACKBONE.CONV_BODY", "R-51-FPN"])
    start = r"^MODEL\.BACKBONE\.CONV_BODY: nothing is registered as R-51; did you mean R-"
    with pytest.raises(InputError, match=start):
        build_backbone(cfg)
