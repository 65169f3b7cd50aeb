"""What was found as a table for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.files import replacing
from engine.inference.records import Record, read_records
from engine.inference.sinks import TABLES

COLUMNS = ("image", "frame", "time", "class", "score", "x1", "y1", "x2", "y2", "error")


@TABLES.register("csv")
def write_csv(records: Path, folder: Path) -> Path:
    """Write the records of a file as `predictions.csv`, UTF-8, with `COLUMNS`: a row per detection.

    An image without detections, or one that could not be read, has a row too, without a class.

    Raises:
        InputError: `records` cannot be read, or the table cannot be written.
    """
    path = folder / "predictions.csv"
    with replacing(path) as file:
        file.write(_lines([COLUMNS]))
        for record in read_records(records):
            file.write(_lines(_rows(record)))
    return path


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")


def _rows(record: Record) -> Iterator[list[Any]]:
    where = [record["image"], record.get("frame"), record.get("time")]
    for found in record.get("detections", ()):
        yield [*where, found["class"], found["score"], *found["box"], None]
    if not record.get("detections"):
        yield [*where, *[None] * 6, record.get("error")]
