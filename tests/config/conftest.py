from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import load_config
from engine.errors import InputError

_VALID = """\
MODEL:
  ATSS_ON: True
  RPN_ONLY: True
  BACKBONE:
    CONV_BODY: R-50-FPN-RETINANET
"""


@pytest.fixture
def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes my.yaml, by default five valid lines and then the text, into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = "", head: str = _VALID, name: str = "my.yaml") -> str:
        Path(name).write_text(head + text, encoding="utf-8")
        return name

    return write


@pytest.fixture
def answer(write_config: Callable[..., str]) -> Callable[..., str]:
    """The answer to a mistake that starts on line 6 of my.yaml."""

    def ask(text: str = "", opts: tuple[str, ...] = (), **where: str) -> str:
        with pytest.raises(InputError) as caught:
            load_config(write_config(text, **where), opts)
        return str(caught.value)

    return ask
