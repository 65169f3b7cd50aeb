"""Every path argument of every command takes `~` and variables; a path that cannot be expanded is one line."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [path for folder in ("tools", "demo", "datasets") for path in sorted((ROOT / folder).glob("*.py"))]
FORMS = {  # a command line in which each path is P
    "analyze_anchors": ["--config-file P --output-dir P"],
    "analyze_logs": ["P --output P"],
    "atss_demo": ["--config-file P --weights P --images-dir P --output-dir P"],
    "augment_dataset": ["--config-file P --output P"],
    "average_checkpoints": ["P P P --recompute-bn --config-file P", "P --last 2 --dir P"],
    "build_runtime": ["--output-dir P"],
    "browse_dataset": ["--config-file P --output-dir P"],
    "check_dataset": ["--config-file P --output-dir P"],
    "compare_results": ["P P"],
    "convert_dataset": ["P P --to coco --images P"],
    "convert_weights": ["P P --config-file P --class-names-from P"],
    "draw_dataset": ["--config-file P --results P --output-dir P"],
    "evaluate_results": ["--config-file P --results P --output-dir P"],
    "export_model": ["--config-file P --weights P --output P --images P"],
    "generate_fabric": ["--output P"],
    "import_graph": [],
    "model_complexity": ["--config-file P"],
    "predict": ["--config-file P --weights P --input P --output-dir P"],
    "predict_ray": ["--config-file P --weights P --images P --output-dir P"],
    "print_config": ["--config-file P"],
    "publish_model": ["P P"],
    "serve": ["--config-file P --weights P"],
    "split_dataset": ["P P --folds 3 --images P"],
    "test_net": ["--config-file P"],
    "train_net": ["--config-file P"],
}
CASES = [
    (script, " ".join(words), k)
    for script in SCRIPTS
    for words in map(str.split, FORMS.get(script.stem, ["P"]))
    for k in range(words.count("P"))
]


def parse(script: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The values of the arguments, as text."""
    names = runpy.run_path(str(script))
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    main = names.get("parse_args") or names["parse_arguments"]
    args = main(None) if main.__code__.co_argcount else main()
    values = [value for each in vars(args).values() for value in (each if isinstance(each, list) else [each])]
    return [str(value) for value in values]


@pytest.mark.parametrize("script, form, k", CASES, ids=[f"{script.stem} {form} {k}" for script, form, k in CASES])
def test_a_path_argument(script: Path, form: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("NOWHERE", raising=False)
    words, places = form.split(), [m for m, word in enumerate(form.split()) if word == "P"]
    words[places[k]] = "~/mine"
    assert "/home/me/mine" in parse(script, words, monkeypatch)
    words[places[k]] = "$NOWHERE/a"
    with pytest.raises(InputError, match=r"^\$NOWHERE/a: the variable NOWHERE is not set; "):
        parse(script, words, monkeypatch)


def test_no_argument_is_a_plain_path() -> None:
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert not re.search(r"type=(pathlib\.)?Path\b", text), script
