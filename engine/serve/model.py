"""The model that a worker answers with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.data.results import Found, arrays_of, to_dict
from engine.errors import InputError
from engine.files import sha256
from engine.runtime.detections import Detections


class Predicts(Protocol):
    """A Predictor, or what else detects in BGR arrays (H, W, C)."""

    class_names: Sequence[str]

    def __call__(self, image: list[np.ndarray]) -> list[Found]: ...

    def pixels(self, image: bytes) -> np.ndarray: ...


@dataclass(frozen=True)
class ServedModel:
    """A model and what is said of it.

    Attributes:
        predictor: gives all candidates; it is asked by one thread at a time.
        thresholds: score from which detections are answered, for each class (K,).
        colors: RGB, 0..255, for each class (K,).
        name, digest: of its file.
        facts: for the answer of /model, JSON values.
    """

    predictor: Predicts
    thresholds: tuple[float, ...]
    colors: tuple[tuple[int, int, int], ...]
    name: str
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)

    def card(self) -> dict[str, Any]:
        """What /model answers."""
        rows = zip(self.predictor.class_names, self.thresholds, self.colors, strict=True)
        classes = [
            {"label": label, "name": name, "threshold": round(float(threshold), 6), "color": list(color)}
            for label, (name, threshold, color) in enumerate(rows)
        ]
        return {"name": self.name, "hash": self.digest, "classes": classes, **self.facts}

    def detections(
        self, found: Found, threshold: float | None = None, max_detections: int | None = None
    ) -> list[dict[str, Any]]:
        """Those that reach `threshold`, by default that of their class, highest score first, as JSON values."""
        rows = Detections(*arrays_of(found), found.size)
        least = np.float32(self.thresholds)[rows.labels] if threshold is None else threshold
        rows = rows[rows.scores >= least]
        rows = rows[np.argsort(-rows.scores, kind="stable")][:max_detections]
        entries = to_dict(rows, self.predictor.class_names)["detections"]
        return [{"label": label, **entry} for label, entry in zip(rows.labels.tolist(), entries, strict=True)]


Load = Callable[[], ServedModel]
"""Reads the model from its file; called in a thread.

Raises:
    InputError: the file cannot be used.
"""


def check_model(model: ServedModel, size: tuple[int, int] = (160, 240)) -> None:
    """Let `model` detect once in a picture of noise before anybody depends on it.

    Raises:
        InputError: it fails, or gives what cannot be an answer.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (*size, model.facts.get("channels", 3)), np.uint8)
    try:
        (found,) = model.predictor([pixels])
        boxes, scores, labels = (np.asarray(each) for each in (found.boxes, found.scores, found.labels))
    except InputError:
        raise
    except Exception as error:  # whatever a file of another model brings with it
        raise InputError(f"{model.name} fails on an image: {type(error).__name__}: {error}") from error
    num_classes = len(model.predictor.class_names)
    is_sound = np.isfinite(boxes).all() and np.isfinite(scores).all()
    if not is_sound or (len(labels) and not 0 <= labels.min() <= labels.max() < num_classes):
        raise InputError(f"{model.name} gives boxes or scores that are not finite, or labels that it has no class for")


def file_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file."""
    return sha256(path)[:16]


def file_identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written: (inode, nanoseconds, bytes); () where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
