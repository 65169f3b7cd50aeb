"""Results files: scored by tools/evaluate_results.py and drawn by tools/draw_dataset.py, beside a right data set."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import yaml

from tests.fuzz.example import Example, Kind
from tests.fuzz.json_text import changed_json
from tests.fuzz.valid import CONFIG, random_of, results, write_dataset

REPOSITORY = Path(__file__).resolve().parents[2]


class Results:
    """See the text at the head of the file."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.valid = seed, folder
        write_dataset(folder)
        (folder / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        (folder / "bbox.json").write_text(json.dumps(results()), encoding="utf-8")
        self.evaluate = runpy.run_path(str(REPOSITORY / "tools/evaluate_results.py"))["main"]
        self.draw = runpy.run_path(str(REPOSITORY / "tools/draw_dataset.py"))["main"]

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("results", self.seed, number)
        shutil.copytree(self.valid, folder, dirs_exist_ok=True)
        command = [
            "--config-file",
            str(folder / "c.yaml"),
            "--results",
            str(folder / "bbox.json"),
            "--output-dir",
            "out",
        ]
        if random.random() < 0.1:  # what an earlier test left beside its results
            metrics = {"bbox": {"AP": 0.5}, "skipped_images": [3], "num_images": 2}
            kind, data = changed_json(random, metrics)
            (folder / "metrics.json").write_bytes(data)
            return Example("metrics.json", lambda: self.evaluate(command), ("metrics.json",), ("out",))
        kind, data = changed_json(random, results())
        (folder / "bbox.json").write_bytes(data)
        if random.random() < 0.1:
            return Example("draw", lambda: self.draw(command), ("bbox.json",), ("out",))
        return Example(kind, lambda: self.evaluate(command), ("bbox.json",), ("out",))


def build(seed: int, folder: Path) -> Kind:
    return Results(seed, folder)
