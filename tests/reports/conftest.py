"""A real browser, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by playwright: the file that CHROMIUM names, or one on the PATH.

    One for each test, since a Chromium of a single process ends with its first page.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright and a Chromium")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not path:
        pytest.skip("needs a Chromium: set CHROMIUM to its path")
    swiftshader = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--in-process-gpu"]
    arguments = ["--headless=shell", "--no-sandbox", "--no-zygote", "--single-process", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=[*arguments, *swiftshader], timeout=60_000)
        yield found
        found.close()
