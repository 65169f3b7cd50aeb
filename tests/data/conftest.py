"""Small COCO data sets, as `write_coco` leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.data.dataset import CocoDataset


def annotation(image_id: Any = 1, category_id: Any = 3, bbox: Any = None, **more: Any) -> dict:
    """A row of `annotations`; `more` are its other fields."""
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [1, 2, 3, 4] if bbox is None else bbox,
        **more,
    }


def open_coco(folder: Path, **options: Any) -> CocoDataset:
    """The data set in a folder of `write_coco`."""
    return CocoDataset(folder.name, folder / "images", folder / "ann.json", **options)
