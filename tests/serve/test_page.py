"""The pages in a real browser: an image goes in, boxes are drawn, sliders redraw; nothing comes from elsewhere."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import encoded
from tests.serve.test_processes import Server, fake, serving

NAMES = ["划痕 <img src=x onerror=alert(1)>", "hole"]

DROP = """([kind, text]) => {
  const bytes = Uint8Array.from(atob(text), each => each.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "model.json").write_text(json.dumps({"names": NAMES}))
    with serving(fake(folder)) as running:
        yield running


class View:
    """A page in the browser, with what it asked for and said."""

    def __init__(self, browser: Any, url: str, width: int = 1100) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.messages: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self._hear(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def _hear(self, text: str) -> None:
        if not text.startswith("Canvas2D: Multiple readback"):  # `color_at`
            self.messages.append(text)

    def counts(self) -> list[str]:
        return [each.inner_text() for each in self.page.query_selector_all(".count")]

    def wait_for_status(self, words: str) -> None:
        self.page.wait_for_function("words => document.getElementById('status').textContent.includes(words)", arg=words)

    def color_at(self, x: int, y: int) -> list[int]:
        script = "([x, y]) => [...document.getElementById('picture').getContext('2d').getImageData(x, y, 1, 1).data]"
        return self.page.evaluate(script, [x, y])[:3]


@pytest.mark.parametrize("width", [1100, 360])
def test_a_chosen_image(browser: Any, server: Server, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(encoded(240, 320, ".png"))
    view = View(browser, server.url, width)
    view.page.set_input_files("#file", str(picture))
    view.wait_for_status("320 x 240")
    names = [each.inner_text() for each in view.page.query_selector_all(".name")]
    assert names == NAMES and view.page.query_selector("img") is None
    assert view.counts() == ["2", "1"] and view.page.inner_text("#total") == "3"
    size = "[document.getElementById('picture').width, document.getElementById('picture').height]"
    assert view.page.evaluate(size) == [960, 720]
    assert view.color_at(480, 300) == [255, 77, 79]  # the right side of the box of the first class
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("SCREENSHOTS"):
        view.page.screenshot(path=f"{folder}/page_{width}.png", full_page=True)
    slider = view.page.query_selector(".row input")
    for value, counts in ((0.02, ["2", "1"]), (0.5, ["1", "1"]), (1, ["0", "1"])):
        slider.fill(str(value))
        assert view.counts() == counts
    assert view.color_at(480, 300) == [64, 169, 255]  # the other class, whose box has been below
    view.page.click("#reset")
    assert view.counts() == ["2", "1"]
    assert not view.messages and not [url for url in view.asked if not url.startswith((server.url, "data:", "blob:"))]
    view.page.close()


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_or_pasted_image(browser: Any, server: Server, kind: str) -> None:
    view = View(browser, server.url)
    view.page.evaluate(DROP, [kind, base64.b64encode(encoded(60, 90, ".png")).decode()])
    view.wait_for_status("dropped.png: 90 x 60")
    assert view.counts() == ["2", "1"] and not view.messages
    view.page.close()


def test_a_key_is_asked_for(browser: Any, tmp_path: Path) -> None:
    with serving(fake(tmp_path), {"ENGINE_API_KEY": "a key"}) as server:
        view = View(browser, server.url)
        view.wait_for_status("a key is needed")
        view.page.set_input_files(
            "#file", {"name": "a.png", "mimeType": "image/png", "buffer": encoded(60, 90, ".png")}
        )
        view.page.fill("#secret", "a key")
        view.page.press("#secret", "Enter")
        view.wait_for_status("a.png: 90 x 60")
        assert view.counts() == ["2", "1"] and not view.page.is_visible("#secret")
        view.page.close()


def test_what_is_no_image_is_said(browser: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    view = View(browser, server.url)
    view.page.set_input_files("#file", str(tmp_path / "a.png"))
    view.wait_for_status("not an image")
    assert view.page.get_attribute("#status", "class") == "error"
    view.page.close()


def test_the_description_without_a_network(browser: Any, server: Server) -> None:
    view = View(browser, f"{server.url}/docs")
    view.page.wait_for_selector("article")
    text = view.page.inner_text("body")
    assert "POST /detect" in text and "max_detections" in text and "multipart/form-data" in text and "429" in text
    assert not view.messages and all(url.startswith((server.url, "data:")) for url in view.asked)
    view.page.close()
