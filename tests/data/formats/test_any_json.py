"""Whatever JSON a file holds, reading it ends well or with one line: no traceback, no crash."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.run_logs import figures_table, find_metrics, read_runs, times_table
from engine.data.dataset import CocoDataset
from engine.data.formats import coco
from engine.errors import InputError
from engine.evaluation.coco import coco_metrics
from engine.evaluation.results import read_results, read_skipped_images, without_images
from engine.files import write_json

NUM_EXAMPLES = 5000 if os.environ.get("CI") else 500

RAW = {f"<{k}>": text for k, text in enumerate(["9" * 5000, "NaN", "-Infinity", "1e999", "[" * 3000 + "]" * 3000])}
"""JSON that `json.dumps` does not write, by a stand-in."""
TEXTS = ["", " ", "0", "1", "2", " 1", "1.0", "3.5", "1e400", "nan", "yes", "hole", "hole ", "d\u00e9", "de\u0301"]
TEXTS += ["a.png", "a\0.png", "..\\a.png", "images/a.png", "x" * 5000, "\n", "\ud83d", "\udcff", "9" * 4500, *RAW]
NUMBERS = [0, 1, 2, 3, -1, 1.0, 0.5, 1e308, -1e308, 2**31, 2**53, 2**63, 2**64, 10**400, 10**4299, True, False]
LISTS: list[Any] = [[], {}, [[]], [1, 2, 3, 4], ["1", "2", "3", "4"], [1e308] * 4, [-5, -5, 0, 0], [1, 2, -3, 4]]
LISTS += [[[1, 2, 5, 2, 5, 8]], {"size": [3, 2], "counts": "PPYo0"}, {"size": [3, 2], "counts": [1, 2]}, {"id": 1}]
VALUES = [None, *TEXTS, *NUMBERS, *LISTS]
KEYS = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "file_name", "name"]
KEYS += ["height", "width", "supercategory", "images", "annotations", "categories", "score", "bbx", "annotation"]


def coco_file() -> dict[str, Any]:
    names = ["all", "hole", "d\u00e9"]
    boxes = [(1, 1, [1, 2, 3, 4]), (1, 2, [5, 5, 9, 9]), (2, 0, [0, 0, 4, 4])]
    return {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 20, "width": 30} for k in (1, 2)],
        "categories": [{"id": k, "name": name, "supercategory": "all"} for k, name in enumerate(names)],
        "annotations": [{"id": k, "image_id": i, "category_id": c, "bbox": b} for k, (i, c, b) in enumerate(boxes)],
    }


def results_file() -> list[dict[str, Any]]:
    return [{"image_id": 1 + k % 2, "category_id": k % 3, "bbox": [k, 2, 3, 4], "score": 0.5} for k in range(4)]


def changed(content: Any, rng: random.Random, num_changes: int) -> Any:
    """`content` with so many values, keys and entries changed, removed or repeated, anywhere in it."""
    for _ in range(num_changes):
        place, key, value = content, None, copy.deepcopy(rng.choice(VALUES))
        while isinstance(place, dict | list) and place and (key is None or rng.random() < 0.75):
            parent, key = place, rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            place = parent[key]
        if key is None or rng.random() < 0.02:
            content = value
            continue
        action = rng.randrange(6)
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif action == 2 and isinstance(parent, dict):
            parent[rng.choice(KEYS)] = parent.pop(key)
        elif action == 3 and isinstance(parent, dict):
            parent[rng.choice(KEYS)] = value
        else:
            parent[key] = value
    return content


def written(path: Path, content: Any, rng: random.Random) -> Path:
    text = json.dumps(content, ensure_ascii=rng.random() < 0.9)
    for stand_in, raw in RAW.items():
        text = text.replace(f'"{stand_in}"', raw)
    if rng.random() < 0.05:
        text = text.replace("{", '{"id": 1, "image_id": 2, "images": [], ', 1)  # keys that occur twice
    if rng.random() < 0.05:
        text = text[: rng.randrange(len(text) + 1)]
    path.write_bytes(text.encode(rng.choice(["utf-8"] * 9 + ["utf-16"]), "surrogatepass"))
    return path


def outcome_of(read: Callable[[], Any]) -> Any:
    """What `read` returns, or the `InputError` that it raises, which must be one line that a terminal can show."""
    try:
        return read()
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        assert str(error).encode("utf-8", "backslashreplace")
        return error


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32), num_changes=st.integers(1, 6))
def test_annotations_and_results(tmp_path_factory: pytest.TempPathFactory, seed: int, num_changes: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path_factory.getbasetemp()
    ann_file = written(folder / "ann.json", changed(coco_file(), rng, num_changes * rng.randrange(2)), rng)
    dataset = outcome_of(lambda: CocoDataset("toy", folder, ann_file))
    faults = list(coco.file_faults(ann_file))
    if isinstance(dataset, InputError):
        assert faults[0] == str(dataset)
        return
    assert not faults
    table = dataset.annotations
    assert np.isfinite(table.boxes_xywh).all() and len(set(table.image_ids)) == len(table.image_ids)
    assert len(set(map(type, table.image_ids))) < 2 and len(set(map(type, table.category_ids))) == 1
    assert all((rows >= 0).all() for rows in (table.image_rows, table.category_rows))
    results_path = written(folder / "results.json", changed(results_file(), rng, num_changes), rng)
    results = outcome_of(lambda: read_results(results_path, table))
    if not isinstance(results, InputError) and rng.random() < 0.2:
        metrics_path = written(folder / "m.json", changed({"skipped_images": [1, "a"]}, rng, 1), rng)
        kept = without_images(table, read_skipped_images(metrics_path, table, results))
        write_json(
            folder / "again.json",
            [{key: row[key] for key in ("image_id", "category_id", "bbox", "score")} for row in results],
        )
        again = read_results(folder / "again.json", kept)
        assert coco_metrics(kept, again, dataset.class_names, dataset.category_ids)["bbox"]["AP"] <= 1


@settings(max_examples=NUM_EXAMPLES // 10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_logs_of_metrics(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    record = {"iteration": 20, "loss": 0.5, "time": 0.1, "data_time": 0.01, "lr": 0.1, "val/AP": 0.2}
    records = [changed(record | {"iteration": k}, rng, rng.randrange(3)) for k in range(1, 4)]
    path.write_bytes(b"\n".join([written(path, each, rng).read_bytes() for each in records]))
    runs = outcome_of(lambda: read_runs([path]))
    if not isinstance(runs, InputError):
        metrics = outcome_of(lambda: find_metrics(runs))
        if not isinstance(metrics, InputError):
            assert times_table(runs) and figures_table(runs, metrics)
