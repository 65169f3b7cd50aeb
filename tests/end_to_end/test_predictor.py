"""`engine.Predictor` as programs use it: in threads, sent to other processes, on images without detections."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from engine import Detections, Predictor
from tests.end_to_end.conftest import Trained, World


@pytest.fixture(scope="module")
def predictor(world: World, trained: Trained) -> Predictor:
    return Predictor(world.config, trained.model, threshold=0.0)


@pytest.fixture(scope="module")
def paths(world: World) -> list[Path]:
    return sorted((world.root / "val").iterdir())


def assert_equal(ours: list[Detections], expected: list[Detections]) -> None:
    for a, b in zip(ours, expected, strict=True):
        assert len(b) and torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels) and a.size == b.size


def test_threads_share_a_predictor(predictor: Predictor, paths: list[Path]) -> None:
    with ThreadPoolExecutor(3) as threads:
        assert_equal(list(threads.map(predictor, paths * 2)), [predictor(path) for path in paths * 2])


def test_a_predictor_can_be_sent_to_another_process(predictor: Predictor, paths: list[Path]) -> None:
    copy = pickle.loads(pickle.dumps(predictor))
    assert copy.class_names == predictor.class_names
    assert_equal(copy(paths[:2]), predictor(paths[:2]))


def test_no_detections(world: World, trained: Trained, paths: list[Path]) -> None:
    found = Predictor(world.config, trained.model, threshold=1.0)(paths[0])
    assert found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)
