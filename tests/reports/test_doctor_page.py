"""The page of the checks: what stands in it, that nothing runs in it, and how a browser lays it out."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.data.doctor import Case, Example, Finding, examine
from engine.data.summary import summarize_case
from engine.reports.doctor_page import page
from engine.reports.doctor_text import console_report, json_report
from engine.reports.example_pictures import HEIGHT, WIDTH, draw_example
from engine.structures import Targets
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """All tags of a page, and those that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture
def report(write_coco: WriteCoco) -> tuple[list[Finding], list[Any], str, str, dict[str, Any]]:
    """Findings of boxes inside, over the edge of and far outside images, in a class with an evil name."""
    boxes = [[2, 2, 10, 8], [30, 10, 30, 30], [200, 5, 9, 9], [5, 5, 0, 0], [1, 1, 5e8, 3]]
    folder = write_coco(
        [(1, 40, 60), (2, 300, 400)], [annotation(1 + k % 2, 3, box) for k, box in enumerate(boxes)], ((3, EVIL),)
    )
    dataset = open_coco(folder)
    summaries, _ = summarize_case(Case(tuple(examine(dataset, 40, 60))))
    findings = [each for one in summaries for each in one.findings]
    findings.append(Finding("X", "note", f"a {EVIL} & more", examples=(Example(f"{EVIL}.png"),), remedy="nothing"))
    return findings, summaries, "all", "my.yaml", {"toy": dataset}


def test_nothing_of_the_data_becomes_markup(report: tuple) -> None:
    text = page(*report)
    tags = Tags(text)
    assert not tags.open and not tags.wrong
    assert {tag for tag, _ in tags.seen}.isdisjoint({"script", "link", "iframe", "object", "form"})
    assert EVIL not in text and "&lt;script&gt;" in text
    assert all(value.startswith(("#", "data:image/")) for _, attrs in tags.seen for value in _urls(attrs))
    assert "default-src 'none'" in text and not re.search(r"https?://|@import|url\(", text)


def _urls(attrs: dict[str, str]) -> list[str]:
    assert not any(name.startswith("on") for name in attrs)
    return [attrs[name] for name in ("src", "href", "action") if name in attrs]


def test_examples_have_pictures(report: tuple) -> None:
    tags = Tags(page(*report))
    pictures = [attrs for tag, attrs in tags.seen if tag == "img"]
    assert len(pictures) >= 3
    for attrs in pictures:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(attrs["src"].partition(",")[2]), np.uint8), 1)
        assert image.shape[:2] == (int(attrs["height"]), int(attrs["width"]))
        assert image.shape[0] <= HEIGHT + 1 and image.shape[1] <= WIDTH + 1


@pytest.mark.parametrize(
    "box",
    [None, (10, 10, 30, 30), (-30, -20, 10, 10), (500, 5, 600, 9), (5, 5, 5, 5), (-1e8, 0, 1e8, 1)],
    ids=["none", "inside", "over the edge", "far outside", "point", "huge"],
)
@pytest.mark.parametrize("size", [(40, 60), (900, 1200), (1, 1)])
def test_any_box_can_be_drawn(size: tuple[int, int], box: tuple | None) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    none = torch.zeros(0, dtype=torch.int64)
    targets = Targets(torch.zeros(0, 4), none, none.bool(), 1, size, size)
    picture = draw_example(image, targets, ["hole"], box)
    assert picture.dtype == np.uint8 and 0 < picture.shape[0] <= HEIGHT + 1 and 0 < picture.shape[1] <= WIDTH + 1


def test_text_and_json(report: tuple) -> None:
    text = console_report(*report[:3])
    assert "BOX_OUTSIDE toy: 1 of 5 boxes lie outside their image" in text and "image 1" in text
    data = json.loads(json.dumps(json_report(*report[:4])))
    assert data["counts"]["note"] >= 1 and {each["code"] for each in data["findings"]} >= {"BOX_OUTSIDE", "X"}


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it_without_scrolling_sideways_or_loading(
    browser: Any, report: tuple, tmp_path: Path, width: int
) -> None:
    (tmp_path / "report.html").write_text(page(*report), encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 900})
    requests, messages = [], []
    view.on("request", lambda request: requests.append(request.url))
    view.on("console", lambda message: messages.append(message.text))
    view.goto(f"file://{tmp_path / 'report.html'}")
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert all(view.evaluate("[...document.images].map(each => each.naturalWidth > 0)"))
    assert not messages and not [url for url in requests if not url.startswith(("file:", "data:"))]
    for link in view.query_selector_all("td a"):
        assert view.query_selector(link.get_attribute("href"))
    view.close()
