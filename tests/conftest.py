from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock

from engine.device import num_cpus
from engine.log import warn_once

Made = TypeVar("Made")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")

torch.set_num_threads(1)
if "PYTEST_XDIST_WORKER" in os.environ:  # the commands of several workers share the CPUs
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without deadlines, which fail on a busy machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("by hand", deadline=None)
# In CI a change must not fail by chance; runs by hand try new examples each time.
hypothesis.settings.load_profile("repeatable" if os.environ.get("CI") else "by hand")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also run the tests marked nightly, which take long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--nightly"):
        return
    skip = pytest.mark.skip(reason="takes long: run by make nightly, or with --nightly")
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(skip)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of `-n auto`: a process for each CPU, but many fixtures of a module are made once for each."""
    return min(max(num_cpus(), 2), 4)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What `make` returns for a folder of this name: it is called once in a session, however many processes run tests.

    Tests may read the folder, not change it; what is returned is pickled.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of all workers
    record = root / f"{name}.pickle"
    with FileLock(root / f"{name}.lock"):
        if not record.exists():
            folder = root / name
            folder.mkdir()
            record.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(record.read_bytes())


def _folder(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{what}: set {variable} to the folder that holds them")
    return Path(value)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Values recorded from the original implementations."""
    return _folder("DETECTION_GOLDEN", "golden figures are not here")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data sets in COCO format."""
    return _folder("DETECTION_DATA", "real data sets are not here")


@pytest.fixture(autouse=True)
def engine_logger() -> Iterator[None]:
    """Restores the handlers and the level of the engine logger after each test, which begins with nothing said."""
    logger = logging.getLogger("engine")
    before = list(logger.handlers), logger.propagate, logger.level
    warn_once.cache_clear()
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The records of the engine logger from INFO on."""
    monkeypatch.setattr(logging.getLogger("engine"), "propagate", True)
    caplog.set_level(logging.INFO, "engine")
    return caplog


WriteCoco = Callable[..., Path]


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture that survives JPEG: colour gradients, different for each seed."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.float32)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    return smooth_image


@pytest.fixture
def write_coco(tmp_path: Path) -> WriteCoco:
    """Writes `root/NAME/images/*.png` and `root/NAME/ann.json`; returns the folder.

    Images are (id, height, width); annotations are written as given.
    """

    def write(
        images: list[tuple[int | str, int, int]],
        annotations: list[dict[str, Any]],
        categories: tuple[tuple[int, str], ...] = ((7, "hole"), (3, "scratch")),
        name: str = "toy",
        with_sizes: bool = True,
        changes: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        rows = []
        for number, (image_id, height, width) in enumerate(images):
            file_name = f"{number}.png"
            cv2.imwrite(str(folder / "images" / file_name), smooth_image(height, width, number))
            sizes = {"height": height, "width": width} if with_sizes else {}
            rows.append({"id": image_id, "file_name": file_name, **sizes})
        data = {
            "images": rows,
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in categories],
        }
        data.update(changes or {})
        (folder / "ann.json").write_text(json.dumps(data))
        return folder

    return write


@pytest.fixture(scope="session")
def damaged_jpeg() -> bytes:
    """48 x 64 pixels whose data end early, with an end marker: decoders fill the rest with grey."""
    data = cv2.imencode(".jpg", smooth_image(48, 64) // 2 + np.indices((48, 64)).sum(0)[..., None] % 7 * 9)[1].tobytes()
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by playwright: the file that CHROMIUM names, or one on the PATH.

    One for each test, since a Chromium of a single process ends with its first page.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright and a Chromium")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path:
        pytest.skip("needs a Chromium: set CHROMIUM to its path")
    swiftshader = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--in-process-gpu"]
    arguments = ["--headless=shell", "--no-sandbox", "--no-zygote", "--single-process", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=[*arguments, *swiftshader], timeout=60_000)
        yield found
        found.close()
