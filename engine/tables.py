"""Plain-text tables for the console and the log, aligned even where names hold wide characters."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import chain, zip_longest

from tabulate import tabulate

WIDTH = 100  # columns of text that a table with shared lines may take


def display_width(text: str) -> int:
    """The columns that `text` takes in a terminal: 2 for a Chinese character, none for a combining mark.

    Example:
        >>> display_width("ab"), display_width("破洞")
        (2, 4)
    """
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    # Cf: format characters such as the zero-width joiner; Mn, Me: marks drawn over the character before
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1  # wide, full-width


def side_by_side(headers: Sequence[str], rows: list[list[str]]) -> str:
    """A table whose lines hold several rows each, as many as fit into `WIDTH`; rows run down, then across."""
    name_width = max(display_width(row[0]) for row in rows)
    group_width = max(name_width, len(headers[0])) + sum(2 + max(len(h), 5) for h in headers[1:]) + 2
    groups = max(1, min(WIDTH // group_width, len(rows)))
    height = math.ceil(len(rows) / groups)
    groups = math.ceil(len(rows) / height)  # rounding up the height may have emptied the last group
    columns = [rows[g * height : (g + 1) * height] for g in range(groups)]  # the last one may be shorter
    lines = [list(chain(*parts)) for parts in zip_longest(*columns, fillvalue=[""] * len(headers))]
    names = tuple(g * len(headers) for g in range(groups))
    return aligned_table(list(headers) * groups, lines, text_columns=names)


def aligned_table(headers: list[str], rows: list[list[str]], text_columns: tuple[int, ...] = (0,)) -> str:
    """A table by tabulate, aligned even where cells hold wide characters and `wcwidth` is not installed.

    tabulate counts characters. So a cell with other than ASCII characters is replaced by as many copies of a private
    character as it takes columns, and restored in the finished text. `text_columns` are aligned left, others right.
    """
    stand_ins: dict[str, str] = {}

    def stand_in(text: str) -> str:
        if text.isascii():
            return text
        run = chr(0xF0000 + len(stand_ins)) * max(display_width(text), 1)
        stand_ins[run] = text
        return run

    # disable_numparse: a class may be called 007
    body = [[stand_in(_one_line(cell)) for cell in row] for row in rows]
    align = ["left" if i in text_columns else "right" for i in range(len(headers))]
    text = tabulate(body, headers, tablefmt="simple", colalign=align, disable_numparse=True)
    for run, original in stand_ins.items():
        text = text.replace(run, original)
    return text


def _one_line(text: str) -> str:
    # A name may hold a line break or a tab, which would break the table.
    return " ".join(text.split()) if any(char.isspace() and char != " " for char in text) else text
