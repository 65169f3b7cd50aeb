"""Detections in the files that competitions and spreadsheets want, from a test or from `Predictor`.

Boxes are corners in pixels of the image file, without rounding: the fewest digits that name the same float32.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation.results import refuse_not_finite
from engine.files import write_text
from engine.registry import Registry
from engine.structures import Detections

RESULT_FORMATS = Registry("RESULT_FORMATS")
"""Writers of result files: (entries, folder: Path) -> the file written; for the entries see `result_entries`."""

Entry = dict[str, Any]


def result_entries(
    detections: Iterable[tuple[str, Detections]], class_names: Sequence[str], min_score: float = 0.0
) -> list[Entry]:
    """`{"name", "category", "bbox": [x1, y1, x2, y2], "score"}` for each detection, in the order given.

    Args:
        detections: (name of an image, what was found in it).
        class_names: of labels 0..K-1.
        min_score: detections below it are left out.

    Raises:
        InputError: a box or score is not finite, as with weights that have diverged.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[1.0, 2.0, 4.1, 6.0]])
        >>> found = Detections(boxes, scores=torch.tensor([0.5]), labels=torch.tensor([0]), size=(10, 10))
        >>> result_entries([("a.jpg", found)], ["hole"])
        [{'name': 'a.jpg', 'category': 'hole', 'bbox': [1.0, 2.0, 4.1, 6.0], 'score': 0.5}]
    """
    entries = []
    for name, found in detections:
        refuse_not_finite(name, found)
        kept = found[found.scores >= min_score]
        rows = zip(_short(kept.boxes.numpy()), _short(kept.scores.numpy()), kept.labels.tolist(), strict=True)
        entries.extend(
            {"name": name, "category": class_names[label], "bbox": box, "score": score} for box, score, label in rows
        )
    return entries


def _short(values: np.ndarray) -> list[Any]:
    """Floats as nested lists; 0.1 for the float32 that is nearest to it, not 0.10000000149."""
    texts = values.astype(np.float32).astype(str)  # (...,) the shortest decimals of each
    return texts.astype(np.float64).tolist()


@RESULT_FORMATS.register("competition")
def write_competition(entries: Sequence[Entry], folder: Path) -> Path:
    """`result.json`: the entries as they are, one per line."""
    path = folder / "result.json"
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
    write_text(path, f"[\n{lines}\n]\n" if entries else "[]\n")
    return path


@RESULT_FORMATS.register("csv")
def write_csv(entries: Sequence[Entry], folder: Path) -> Path:
    """`result.csv`: a line per detection, `name,category,xmin,ymin,xmax,ymax,score`, after a header."""
    path, text = folder / "result.csv", io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "category", "xmin", "ymin", "xmax", "ymax", "score"])
    writer.writerows([entry["name"], entry["category"], *entry["bbox"], entry["score"]] for entry in entries)
    write_text(path, text.getvalue())
    return path
