"""What a LabelMe file looks like, for annotations and for detections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath


def file_text(image_name: str, size: tuple[int, int], shapes: Sequence[str]) -> str:
    """The content of a file for the image beside it, of what `shape_text` gives; the size may be (0, 0): not known."""
    height, width = (str(side) if side else "null" for side in size)
    lines = ",".join("\n    " + each for each in shapes)
    return (
        f'{{\n  "version": "5.0.1",\n  "flags": {{}},\n  "shapes": [{lines}\n  ],\n'
        f'  "imagePath": {json.dumps(PurePosixPath(image_name).name, ensure_ascii=False)},\n'
        f'  "imageData": null,\n  "imageHeight": {height},\n  "imageWidth": {width}\n}}\n'
    )


def shape_text(label: str, corners: Sequence[str], is_ignored: bool = False, score: float | None = None) -> str:
    """A rectangle; `corners` are x1, y1, x2, y2 as texts, since floats cannot hold every sum."""
    x1, y1, x2, y2 = corners
    flags = '{"ignore": true}' if is_ignored else "{}"
    shape = '"group_id": null, "shape_type": "rectangle"'
    found = "" if score is None else f', "score": {score}'
    points = f"[[{x1}, {y1}], [{x2}, {y2}]]"
    return f'{{"label": {json.dumps(label, ensure_ascii=False)}, "points": {points}, {shape}, "flags": {flags}{found}}}'
