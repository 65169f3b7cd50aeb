"""The table of `docs/augmentation.md` has every step with its arguments and defaults; its examples load."""

from __future__ import annotations

import re

import pytest
import yaml

from engine.config import load_config
from engine.config.keys.augmentations import STEPS
from tests.end_to_end.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "augmentation.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT, re.M))


def test_every_step_has_a_row() -> None:
    assert list(ROWS) == list(STEPS.arguments)


@pytest.mark.parametrize("step", STEPS.arguments)
def test_arguments_and_defaults(step: str) -> None:
    written = {}
    for text in re.findall(r"`(.*?)`", ROWS[step]):
        written.update(yaml.safe_load(text) if ":" in text else {text: None})
    declared = {}
    for name, argument in STEPS.arguments[step].items():
        value = list(argument.default) if isinstance(argument.default, tuple) else argument.default
        declared[name] = value if value not in ([], "") else None
    assert written == declared


def test_examples_load(tmp_path) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S)
    assert len(examples) == 2
    for text in examples:
        (tmp_path / "c.yaml").write_text(f"_BASE_: {REPOSITORY}/configs/bccd/atss_R_18_bccd.yaml\n{text}")
        assert load_config(tmp_path / "c.yaml").INPUT.AUGMENTATIONS
