"""The sinks and tables that words choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.errors import InputError
from engine.inference.sinks import SINKS, TABLES, Output, Sink, crops, page, pictures, tables, video  # noqa: F401

RECORDS_ALONE = "jsonl"
"""The word for nothing but the records."""
USUAL, USUAL_OF_LIVE = ("pictures", "video"), ()
"""What is saved if nothing is said: a camera would fill the disk."""


def check_saves(names: Sequence[str]) -> None:
    """Raise an `InputError` if one of `names` is not a word for `--save`."""
    known = sorted({RECORDS_ALONE, *SINKS.names(), *TABLES.names()})
    for name in names:
        if name not in known:
            raise InputError(f"--save {name}: there is no such output; choose from {', '.join(known)}")


def build_sinks(
    names: Sequence[str], folder: Path, class_names: Sequence[str], originals: frozenset[str] = frozenset()
) -> list[Sink]:
    """The sinks among `names`, each below its place in `folder`."""
    output = Output(class_names, originals, "video" in names)
    parts = [SINKS.get(name) for name in names if name in SINKS]
    return [part(folder / part.place, output) for part in parts]


def write_tables(names: Sequence[str], records: Path, folder: Path) -> list[Path]:
    """Write the tables among `names`, made from the records of a whole run; returns what was written."""
    return [TABLES.get(name)(records, folder) for name in names if name in TABLES]
