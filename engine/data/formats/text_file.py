"""Text files of annotations as lines, whatever program and system wrote them."""

from __future__ import annotations

import codecs
from pathlib import Path

from engine.errors import InputError
from engine.files import read_bytes

_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or UTF-16 with its mark (Excel's "Unicode text"), with `\\n` at the ends of lines.

    Raises:
        InputError: the file cannot be read, or is no such text (names the line).
    """
    data = read_bytes(path)
    if data[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and data.count(b"\0") > len(data) // 3:
        raise InputError(f"{path}: not UTF-8 text (UTF-16 without its mark?); save it as UTF-8")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file without blanks at their ends; those that are empty stay, so that an index is a line.

    Raises:
        InputError: as `read_text`.
    """
    return [line.strip() for line in read_text(path).split("\n")]
