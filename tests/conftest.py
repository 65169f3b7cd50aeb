from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
if os.environ.get("CI"):  # a change is not to fail by chance; whoever runs the tests by hand looks further each time
    hypothesis.settings.load_profile("repeatable")


def _folder(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{what}: set {variable} to the folder that holds them")
    return Path(value)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Figures recorded from the original implementations."""
    return _folder("DETECTION_GOLDEN", "golden figures are not here")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data sets in COCO format."""
    return _folder("DETECTION_DATA", "real data sets are not here")


@pytest.fixture(autouse=True)
def engine_logger() -> Iterator[None]:
    """No test leaves handlers or levels on the engine's logger behind for the next."""
    logger = logging.getLogger("engine")
    before = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the engine's logger says, from INFO on."""
    monkeypatch.setattr(logging.getLogger("engine"), "propagate", True)
    caplog.set_level(logging.INFO, "engine")
    return caplog
