"""Detections in the files that competitions and spreadsheets want, from a test or from `Predictor`.

Boxes are corners in pixels of the image file, without rounding: the fewest digits that name the same float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.data.results import Entry, Found, competition_text, csv_text, to_entries
from engine.files import write_text
from engine.registry import Registry

RESULT_FORMATS = Registry("RESULT_FORMATS")
"""Writers of result files: (entries, folder: Path) -> the file written; for the entries see `result_entries`."""


def result_entries(
    detections: Iterable[tuple[str, Found]], class_names: Sequence[str], min_score: float = 0.0
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
        >>> from engine.structures import Detections
        >>> boxes = torch.tensor([[1.0, 2.0, 4.1, 6.0]])
        >>> found = Detections(boxes, scores=torch.tensor([0.5]), labels=torch.tensor([0]), size=(10, 10))
        >>> result_entries([("a.jpg", found)], ["hole"])
        [{'name': 'a.jpg', 'category': 'hole', 'bbox': [1.0, 2.0, 4.1, 6.0], 'score': 0.5}]
    """
    return [entry for name, found in detections for entry in to_entries(found, name, class_names, min_score)]


@RESULT_FORMATS.register("competition")
def write_competition(entries: Sequence[Entry], folder: Path) -> Path:
    """`result.json`: the entries as they are, one per line."""
    path = folder / "result.json"
    write_text(path, competition_text(entries))
    return path


@RESULT_FORMATS.register("csv")
def write_csv(entries: Sequence[Entry], folder: Path) -> Path:
    """`result.csv`: a line per detection, `name,category,xmin,ymin,xmax,ymax,score`, after a header."""
    path = folder / "result.csv"
    write_text(path, csv_text(entries))
    return path
