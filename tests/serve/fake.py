"""A predictor without a network, and a server of it: `python -m tests.serve.fake MODEL.json [OPTION ...]`."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.data.image_file import decoded_image
from engine.errors import InputError, run_tool
from engine.log import setup_logging
from engine.serve.limits import Limits
from engine.serve.model import ServedModel, file_digest
from engine.serve.plan import WorkerPlan

NAMES = ("hole", "划痕")
SCORES = np.float32([0.9, 0.6, 0.4, 0.1])
KEPT = [("hole", 0.9), ("划痕", 0.6), ("hole", 0.4)]
"""What `FakePredictor` finds with the thresholds of `fake_model`."""


@dataclass
class Found:
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    size: tuple[int, int]


class FakePredictor:
    """Finds a quarter of each image four times: classes 0, 1, 0, 1 with falling scores.

    Attributes:
        seconds: that a call takes.
        endless_height: of an image that a call never ends with.
        gate: calls wait for it.
        batches: sizes of the images of each call.
        fails: instead of an answer.
    """

    def __init__(self, names: Sequence[str] = NAMES, seconds: float = 0.0, endless_height: int = 0) -> None:
        self.class_names, self.seconds, self.endless_height = names, seconds, endless_height
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[tuple[int, ...]]] = []
        self.fails: Exception | None = None

    def pixels(self, image: bytes | np.ndarray) -> np.ndarray:
        return decoded_image(image) if isinstance(image, bytes) else image

    def __call__(self, images: Sequence[np.ndarray]) -> list[Found]:
        time.sleep(self.seconds)
        assert self.gate.wait(20)
        while any(each.shape[0] == self.endless_height for each in images):
            time.sleep(1)
        if self.fails:
            raise self.fails
        self.batches.append([each.shape for each in images])
        return [self._found(*each.shape[:2]) for each in images]

    def _found(self, height: int, width: int) -> Found:
        boxes = np.tile(np.float32([0, 0, width / 2, height / 2]), (4, 1))
        return Found(boxes, SCORES, np.array([0, 1, 0, 1]), (height, width))


def fake_model(predictor: FakePredictor, name: str = "model.pth", digest: str = "0123456789abcdef") -> ServedModel:
    return ServedModel(predictor, (0.3, 0.5), ((255, 77, 79), (64, 169, 255)), name, digest, {"min_size": 96})


def load(path: Path) -> ServedModel:
    """The model of a file that holds {"names": [two names], "seconds": of a call, ...}."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        raise InputError(f"{path}: not a model") from None
    return fake_model(FakePredictor(**content), path.name, file_digest(path))


def main() -> int:
    from engine.serve.supervisor import Supervisor, address_of, open_port

    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limits", type=json.loads, default={})
    args = parser.parse_args()
    logger, limits = setup_logging(), Limits(**args.limits)
    plan = WorkerPlan(partial(load, args.model), limits, [args.model], os.environ.get("ENGINE_API_KEY", ""))
    with open_port("127.0.0.1", 0) as listening:
        logger.info("listening on %s", address_of(listening))
        return Supervisor(plan, listening, args.workers, limits.timeout).run()


if __name__ == "__main__":
    run_tool(main)
