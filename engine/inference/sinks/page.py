"""A page of thumbnails, which needs no network: what was found in each image, 200 to a page."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
from jinja2 import Environment, PackageLoader

from engine.data.image_file import write_image
from engine.errors import printable
from engine.files import write_text
from engine.inference.records import Record, read_records
from engine.inference.sinks import SINKS, TABLES, Output, Seen

WIDTH, HEIGHT = 320, 240
"""Largest sides of a thumbnail."""
PER_PAGE = 200
THUMBNAILS = "thumbnails"


@SINKS.register("page")
class ThumbnailSink:
    """Writes the thumbnails, with the detections on them: of each image, and of a frame per second of a video."""

    place = THUMBNAILS

    def __init__(self, folder: Path, output: Output) -> None:
        self._folder = folder

    def write(self, seen: Seen) -> None:
        frame = seen.frame
        if frame.number is not None and frame.number % max(round(frame.rate or 1.0), 1):
            return
        height, width = seen.picture.shape[:2]
        scale = min(WIDTH / width, HEIGHT / height, 1.0)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        small = cv2.resize(seen.picture, size, interpolation=cv2.INTER_AREA)
        write_image(self._folder / thumbnail_name(frame.item.shown, frame.number), small)

    def close(self) -> None:
        pass


def thumbnail_name(image: str, frame: int | None) -> str:
    """The file name of a thumbnail, for an image as its record names it."""
    key = f"{image}\n{'' if frame is None else frame}"
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:20] + ".jpg"


@dataclass
class _Totals:
    images: int = 0
    unreadable: int = 0
    shown: int = 0
    classes: Counter[str] = field(default_factory=Counter)


@TABLES.register("page")
def write_pages(records: Path, folder: Path) -> Path:
    """Write `index.html`, `page-2.html`, ... for the records of a file to `folder`, beside its thumbnails.

    Names of files and classes are escaped, so they cannot bring scripts into it.

    Returns:
        The first page.

    Raises:
        InputError: `records` cannot be read, or a page cannot be written.
    """
    totals = _Totals()
    for record in read_records(records):
        totals.images += 1
        totals.unreadable += "error" in record
        totals.shown += _is_shown(record, folder)
        totals.classes.update(found["class"] for found in record.get("detections", ()))
    template = Environment(loader=PackageLoader("engine.inference.sinks", "."), autoescape=True).get_template(
        "page.html"
    )
    num_pages = max(-(-totals.shown // PER_PAGE), 1)
    shown = (_card(record, folder) for record in read_records(records) if _is_shown(record, folder))
    for number in range(1, num_pages + 1):
        text = template.render(
            title=printable(os.path.basename(os.path.abspath(folder))),
            totals=totals,
            classes=[(printable(name), count) for name, count in totals.classes.most_common()],
            cards=list(itertools.islice(shown, PER_PAGE)),
            number=number,
            pages=[_page_name(each) for each in range(1, num_pages + 1)],
        )
        write_text(folder / _page_name(number), text)
    for stale in _stale_pages(folder, num_pages):
        stale.unlink(missing_ok=True)
    return folder / _page_name(1)


def _page_name(number: int) -> str:
    return "index.html" if number == 1 else f"page-{number}.html"


def _stale_pages(folder: Path, num_pages: int) -> Iterator[Path]:
    """Pages of an earlier run that had more."""
    for number in itertools.count(num_pages + 1):
        path = folder / _page_name(number)
        if not path.exists():
            return
        yield path


def _is_shown(record: Record, folder: Path) -> bool:
    """Errors, and what has a thumbnail."""
    return "error" in record or (folder / _thumbnail(record)).exists()


def _thumbnail(record: Record) -> str:
    return f"{THUMBNAILS}/{thumbnail_name(record['image'], record.get('frame'))}"


def _card(record: Record, folder: Path) -> dict[str, Any]:
    found = record.get("detections", [])
    counts = Counter(each["class"] for each in found)
    frame = record.get("frame")
    name = os.path.basename(record["image"]) or record["image"]
    is_file = "://" not in record["image"] and os.path.exists(record["image"])
    return {
        "name": printable(name if frame is None else f"{name}, frame {frame}"),
        "place": printable(record["image"]),
        "link": quote(os.path.relpath(record["image"], folder), errors="surrogateescape") if is_file else "",
        "thumbnail": None if "error" in record else _thumbnail(record),
        "error": printable(record.get("error", "")),
        "found": [(printable(each), count) for each, count in counts.most_common()],
        "best": max((each["score"] for each in found), default=None),
    }
