from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ImageFont

from engine.visualize import fonts


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "_warned", [])
    fonts._font_path.cache_clear()
    yield
    fonts._font_path.cache_clear()


def test_latin_without_any_font_file(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    small, large = fonts.font_for("hole 0.87", 10), fonts.font_for("hole 0.87", 40)
    assert large.getlength("hole") > 3 * small.getlength("hole") > 0
    assert not caplog.records


def test_missing_characters_are_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    with caplog.at_level(logging.WARNING):
        fonts.get_logger().propagate = True
        for text in ("破洞", "划痕", "破洞"):
            assert fonts.font_for(text, 12).getlength(text) > 0
    (record,) = caplog.records
    message = record.getMessage()
    assert "破" in message and "fonts-noto-cjk" in message and "\n" not in message


def test_a_font_that_has_the_characters_is_preferred(tmp_path: Path) -> None:
    files = fonts.font_files()
    if not files:
        pytest.skip("no font files on this machine")
    assert fonts.missing_characters(files[0], frozenset("hole")) == frozenset()
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    assert fonts.missing_characters(broken, frozenset("h")) == frozenset("h")


def test_the_first_font_with_every_character_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    latin, chinese = Path("latin.ttf"), Path("chinese.ttf")
    characters = {
        latin: frozenset("hole7"),
        chinese: frozenset("hole7破洞"),
        None: frozenset("hole"),
    }
    monkeypatch.setattr(fonts, "font_files", lambda: (latin, chinese))
    monkeypatch.setattr(fonts, "missing_characters", lambda path, text: text - characters[path])
    monkeypatch.setattr(fonts, "_loaded", lambda path, size: path)
    assert fonts.font_for("hole 7", 12) == latin
    assert fonts.font_for("破洞 7", 12) == chinese
    assert fonts.font_for("破洞 x", 12) == chinese  # most of them


def test_sizes_are_pixels() -> None:
    font = fonts.font_for("hole", 20)
    assert isinstance(font, ImageFont.FreeTypeFont) and font.size == 20
