"""cfg -> how an exported file compares with the model that it was made from, and its own thresholds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from engine.assembly.data import build_dataset
from engine.assembly.testing import score_results
from engine.data.dataset import DetectionDataset
from engine.data.find_images import find_images
from engine.data.image_file import read_image
from engine.errors import InputError
from engine.evaluation.agreement import Agreement, agreement
from engine.evaluation.results import to_coco_results
from engine.inference.predictor import ImagePredictor
from engine.runtime.card import ModelCard
from engine.runtime.detector import Detector
from engine.structures import Detections
from engine.tables import aligned_table

MAX_DROP = 0.01
"""The loss of AP from which on an exported file is refused."""
MAX_DISAGREEMENT = 0.1
"""Without ground truth: the share of detections that only one of the two has. Scores near a threshold may cross it."""

Key = TypeVar("Key")
"""Of an image."""


@dataclass
class Outcome:
    """What was measured on one set of images.

    Attributes:
        source: of the images.
        agreement: of the detections from the model's own thresholds on.
        metrics: those of the model and of the file ("bbox" of `metrics.json`); empty without ground truth.
        thresholds: of the file, as in `thresholds.json`; empty without ground truth.
    """

    source: str
    num_images: int
    agreement: Agreement
    metrics: list[Mapping[str, float]] = field(default_factory=list)
    thresholds: dict[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Of AP; without ground truth, the share of detections that differ."""
        return self.metrics[0]["AP"] - self.metrics[1]["AP"] if self.metrics else 1 - self.agreement.share

    def refusal(self, max_drop: float | None) -> str:
        """Why the file cannot be used; "" if it can. `max_drop` None: as is usual for what was measured."""
        limit = (MAX_DROP if self.metrics else MAX_DISAGREEMENT) if max_drop is None else max_drop
        if self.loss <= limit:
            return ""
        what = "AP falls by" if self.metrics else "the share of detections that differ is"
        return f"{what} {self.loss:.4f} on {self.num_images} images of {self.source}, more than --max-drop {limit:g}"


class ExportCheck:
    """What a model finds on the sets of `DATASETS.TEST`, or without these on the images of a folder.

    `ExportCheck(cfg, model)(exported)` compares an exported file with it: an `Outcome` for each set of images, none if
    there are no images at all.

    Args:
        model: with thresholds of 0.
        images: the folder, or a pattern.
        limit: number of images of each set, the first ones; 0 for all.

    Raises:
        InputError: a set cannot be used, or none of its images can be read.
    """

    def __init__(self, cfg: CfgNode, model: ImagePredictor, images: Path | None = None, limit: int = 0) -> None:
        self._sets: list[_Images] = []
        for name in cfg.DATASETS.TEST:
            dataset = build_dataset(cfg, name, model.class_names)
            ids = dataset.image_ids
            read = {ids[row]: partial(_read_row, dataset, row) for row in range(len(ids))[: limit or None]}
            self._sets.append(_Images(name, read, partial(_score, cfg, dataset)))
        if images and not self._sets:
            paths = find_images([images], recursive=True).paths[: limit or None]
            read = {path: partial(read_image, path, reading=model.reading) for path in paths}
            self._sets.append(_Images(str(images), read))
        self._found = [each.detections(model) for each in self._sets]

    def __call__(self, exported: Detector) -> list[Outcome]:
        """`exported` has thresholds of 0, too."""
        outcomes = []
        for images, expected in zip(self._sets, self._found, strict=True):
            of_file = images.detections(exported)
            of_model = {key: expected[key] for key in of_file}  # a file of fixed size may not take all images
            pairs = [tuple(_kept(found[key], exported.card) for found in (of_model, of_file)) for key in of_file]
            outcome = Outcome(images.source, len(pairs), agreement(pairs))
            scored = [images.score(found) for found in (of_model, of_file)]
            if scored[0]["metrics"]["bbox"]["AP"] >= 0:  # -1: there are no objects in these images
                outcome.metrics = [each["metrics"]["bbox"] for each in scored]
                outcome.thresholds = scored[1]["thresholds"]
            outcomes.append(outcome)
        return outcomes


def check_table(outcomes: Sequence[Outcome], names: tuple[str, str]) -> str:
    """A line for the model and one for the file, by `names`, for each set of images."""
    rows = []
    for outcome in outcomes:
        same = outcome.agreement
        figures = [["", ""], [f"{same.share:.3f}", f"{same.mean_difference:.3f} ({same.largest_difference:.3f})"]]
        for row, name in enumerate(names):
            scores = [f"{outcome.metrics[row][key]:.4f}" if outcome.metrics else "-" for key in ("AP", "AP50")]
            rows.append([outcome.source, str(outcome.num_images), name, *scores, *figures[row]])
    headers = ["images of", "number", "", "AP", "AP50", "equal detections", "scores differ by (at most)"]
    return aligned_table(headers, rows, text_columns=(0, 2))


NO_SCORES: dict[str, Any] = {"metrics": {"bbox": {"AP": -1.0}}}


@dataclass(frozen=True)
class _Images:
    """Images by id or path, and what makes figures of the detections in them, as `score_results` does."""

    source: str
    read: Mapping[Key, Callable[[], np.ndarray]]
    score: Callable[[Mapping[Key, Detections]], Mapping[str, Any]] = lambda found: NO_SCORES

    def detections(self, predictor: ImagePredictor | Detector) -> dict[Key, Detections]:
        """What `predictor` finds in the images that can be read."""
        found, reason = {}, ""
        for key, read in tqdm(self.read.items(), desc="check", leave=None, disable=not sys.stderr.isatty()):
            try:
                one = predictor.detect(read())
            except InputError as error:
                reason = reason or str(error)
                continue
            found[key] = Detections(*map(_tensor, (one.boxes, one.scores, one.labels)), one.size)
        if not found:
            raise InputError(f"{self.source}: none of its images can be used to check the file: {reason}")
        return found


def _tensor(rows: np.ndarray | Tensor) -> Tensor:
    return rows if isinstance(rows, Tensor) else torch.from_numpy(rows.copy())


def _read_row(dataset: DetectionDataset, row: int) -> np.ndarray:
    return dataset.read(row)[0]


def _score(cfg: CfgNode, dataset: DetectionDataset, found: Mapping[Key, Detections]) -> dict[str, Any]:
    left_out = [image_id for image_id in dataset.image_ids if image_id not in found]
    return score_results(cfg, dataset, to_coco_results(found, dataset.category_ids), left_out)


def _kept(found: Detections, card: ModelCard) -> Detections:
    """Those from the thresholds in the card on."""
    thresholds = torch.tensor([card.thresholds.get(name, card.default_threshold) for name in card.class_names])
    return found[found.scores >= thresholds[found.labels]]
