"""COCO dictionaries, in which tests are written, as the table that the evaluation takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.data.annotations import AnnotationTable


def annotation_table(coco_dict: dict[str, Any]) -> AnnotationTable:
    image_row = {image["id"]: row for row, image in enumerate(coco_dict["images"])}
    categories = sorted(coco_dict["categories"], key=lambda category: category["id"])
    category_row = {category["id"]: row for row, category in enumerate(categories)}
    boxes = coco_dict.get("annotations", [])
    areas = [box.get("area", box["bbox"][2] * box["bbox"][3]) for box in boxes]
    return AnnotationTable(
        image_ids=list(image_row),
        file_names=[f"{id_}.png" for id_ in image_row],
        sizes=np.zeros((len(image_row), 2), dtype=np.int32),
        category_ids=list(category_row),
        category_names=[category.get("name", str(category["id"])) for category in categories],
        image_rows=np.array([image_row[box["image_id"]] for box in boxes], dtype=np.int64),
        category_rows=np.array([category_row[box["category_id"]] for box in boxes], dtype=np.int64),
        boxes_xywh=np.array([box["bbox"] for box in boxes], dtype=np.float64).reshape(-1, 4),
        areas=np.array(areas, dtype=np.float64),
        crowd=np.array([bool(box.get("iscrowd", 0)) for box in boxes], dtype=bool),
    )
