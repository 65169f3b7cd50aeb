"""A real model behind real connections: the Predictor's detections, and what many clients, some of them bad, get."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from benchmarks.serve import BAD, load, pictures, worker_megabytes
from engine import Predictor
from engine.data.results import to_dict
from tests.conftest import made_once
from tests.serve.conftest import encoded
from tests.serve.test_processes import Server, serving
from tests.serve.world import write_config, write_model

IMAGES = pictures(6, 96, 128)


def _world(folder: Path) -> tuple[Path, Path]:
    config = write_config(folder)
    return config, write_model(config, folder / "model.pth")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Configuration and weights."""
    return made_once(tmp_path_factory, "served", _world)


@pytest.fixture(scope="module")
def predictor(world: tuple[Path, Path]) -> Predictor:
    return Predictor(*world)


@pytest.fixture(scope="module")
def server(world: tuple[Path, Path]) -> Iterator[Server]:
    config, weights = world
    options = ["--port", "0", "--timeout", "10", "--max-pixels", "1000000"]
    with serving(["tools/serve.py", "--config-file", config, "--weights", weights, *options]) as running:
        yield running


def expected_of(predictor: Predictor, images: list[bytes]) -> list[list[dict]]:
    return [to_dict(predictor(each), predictor.class_names)["detections"] for each in images]


@pytest.mark.parametrize("data", [encoded(120, 160), encoded(70, 50, ".png"), encoded(160, 90, ".webp"), IMAGES[0]])
def test_the_detections_of_the_predictor(server: Server, predictor: Predictor, data: bytes) -> None:
    (expected,) = expected_of(predictor, [data])
    answer = httpx.post(f"{server.url}/detect", content=data, headers={"content-type": "image/png"}).json()["images"][0]
    found = answer["detections"]
    assert [answer["height"], answer["width"]] == list(cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape[:2])
    assert [each["class"] for each in found] == [each["class"] for each in expected] and expected
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["box"] == pytest.approx(theirs["box"], abs=0.01)


def test_the_card(server: Server, predictor: Predictor) -> None:
    card = httpx.get(f"{server.url}/model").json()
    assert [each["name"] for each in card["classes"]] == predictor.class_names
    assert [each["threshold"] for each in card["classes"]] == pytest.approx(predictor.thresholds.tolist())
    assert (card["name"], card["min_size"], card["max_size"], card["device"]) == ("model.pth", 96, 160, "cpu")
    assert len(card["hash"]) == 16


def test_lower_thresholds_than_the_stored_ones(server: Server, predictor: Predictor) -> None:
    found = httpx.post(f"{server.url}/detect?threshold=0", content=IMAGES[0]).json()["images"][0]["detections"]
    assert len(found) == 20 > len(predictor(IMAGES[0]))


def check_load(server: Server, predictor: Predictor, num_requests: int, share_bad: float) -> None:
    outcome = load(server.url, IMAGES, expected_of(predictor, IMAGES), num_requests, 16, share_bad)
    assert not outcome.wrong
    assert outcome.num_reopened <= outcome.statuses[BAD["slow"]]  # whose clients left their connection idle meanwhile
    assert outcome.statuses[200] == len(outcome.latencies) and sum(outcome.statuses.values()) == num_requests
    assert set(BAD.values()) <= set(outcome.statuses)
    assert server.process.poll() is None and not [line for line in server.lines if "Traceback" in line]


def test_sixteen_clients(server: Server, predictor: Predictor) -> None:
    check_load(server, predictor, 300, 0.04)


@pytest.mark.nightly
def test_ten_thousand_requests(server: Server, predictor: Predictor) -> None:
    check_load(server, predictor, 2000, 0.01)
    (early,) = worker_megabytes(server.process.pid)
    check_load(server, predictor, 8000, 0.01)
    (late,) = worker_megabytes(server.process.pid)
    assert late < early + 50 and threading.active_count() < 50
