from __future__ import annotations

import pytest

from engine.tables import display_width


@pytest.mark.parametrize("text, width", [("", 0), ("ab", 2), ("破洞", 4), ("e\u0301", 1), ("ｱ", 1)])
def test_display_width(text: str, width: int) -> None:
    assert display_width(text) == width
