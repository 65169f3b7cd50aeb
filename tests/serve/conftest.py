from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

from engine.serve.app import create_app
from engine.serve.limits import Limits
from engine.serve.metrics import Metrics
from engine.serve.model import ServedModel
from engine.serve.service import Service
from tests.conftest import smooth_image
from tests.serve.fake import FakePredictor, fake_model

DEFAULTS = Limits()


class Client:
    """A service with a fake predictor, and a client that calls its application without a network.

    Attributes:
        predictor: of the model, replaced by `reload`.
    """

    def __init__(self, limits: Limits, api_key: str) -> None:
        self.predictor = FakePredictor()
        self.service = Service(self._load, limits, Metrics())
        self.app = create_app(self.service, api_key)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app, False), base_url="http://test")

    def _load(self) -> ServedModel:
        return fake_model(self.predictor)

    async def detect(self, body: Any, kind: str = "image/jpeg", **options: Any) -> httpx.Response:
        return await self.http.post("/detect", content=body, headers={"content-type": kind}, **options)

    def figure(self, line: str) -> float:
        """The value in the line of /metrics that begins so; 0 without one."""
        lines = self.service.metrics.text().decode().splitlines()
        return next((float(each.rpartition(" ")[2]) for each in lines if each.startswith(line + " ")), 0.0)


Scenario = Callable[[Client], Coroutine[Any, Any, Any]]


def play(scenario: Scenario, limits: Limits = DEFAULTS, api_key: str = "", is_open: bool = True) -> Any:
    """Run `scenario` with a client of a service that has loaded its model (unless it is not to be open)."""

    async def run() -> Any:
        client = Client(limits, api_key)
        if is_open:
            await client.service.start()
            client.service.open()
            client.predictor.batches.clear()
        async with client.http:
            try:
                return await asyncio.wait_for(scenario(client), 60)
            finally:
                client.predictor.gate.set()
                await client.service.close()

    return asyncio.run(run())


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for a condition that another task brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        await asyncio.sleep(0.005)


def encoded(height: int = 40, width: int = 60, suffix: str = ".jpg", seed: int = 0) -> bytes:
    return cv2.imencode(suffix, smooth_image(height, width, seed))[1].tobytes()


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(120, 160, ".png"))
    return path
