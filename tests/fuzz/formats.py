"""Annotations in formats other than COCO: one file of each data set is changed, and it is opened and summarised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from engine.assembly.data import build_train_dataset, report_test_data
from engine.config import load_config
from engine.data.formats.coco import to_table
from engine.data.formats.conversion import convert
from engine.log import setup_logging
from tests.fuzz.example import Example, Kind
from tests.fuzz.json_text import changed_json
from tests.fuzz.mutate import TEXTS, change_bytes, change_lines
from tests.fuzz.valid import CONFIG, coco, random_of, write_dataset

FORMATS = ("voc", "yolo", "txt", "csv", "labelme", "competition")
BOMBS = [
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>',
    "<annotation>" + "<object>" * 100_000,
    "names: " + "[" * 100_000,
    "a: &a [x, x]\nnames: &b [*a, *a]\n",
    "x," * 100_000,
    '"' + "x" * 1_000_000,
    "1 2 3 4 5 " * 50_000,
    "0 " + "0.5 " * 50_000,
]


class Formats:
    """See the text at the head of the file."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.valid = seed, folder
        write_dataset(folder)
        table = to_table(coco(), "tiny.json")
        self.entries = {}
        for name in FORMATS:
            convert(table, folder / name, name, folder / "images")
            done = {"voc": "Annotations", "yolo": "data.yaml", "txt": "annotations", "csv": "annotations.csv"}
            ann_file = f"{name}/{done.get(name, '.' if name == 'labelme' else 'annotations.json')}"
            self.entries[name] = {"img_dir": "images", "ann_file": ann_file}
        (folder / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("formats", self.seed, number)
        name = FORMATS[number % len(FORMATS)]
        for part in ("images", name):
            shutil.copytree(self.valid / part, folder / part)
        shutil.copy(self.valid / "c.yaml", folder)
        for path in random.sample(files := sorted(each for each in (folder / name).rglob("*") if each.is_file()), 1):
            data = path.read_bytes()
            kind = random.choice(["bytes", "lines", "lines", "strange", "json"])
            if kind == "json" and path.suffix == ".json":
                data = changed_json(random, json.loads(data))[1]
            elif kind == "bytes":
                data = change_bytes(random, data)
            elif kind == "strange":
                data = random.choice([*BOMBS, *TEXTS]).encode("utf-8", "surrogatepass")
            else:
                data = change_lines(random, data.decode()).encode("utf-8", "surrogatepass")
            path.write_bytes(data)
        if random.random() < 0.1:
            random.choice(files).unlink()
        entry = dict(self.entries[name])
        if random.random() < 0.7:
            entry["format"] = name
        if random.random() < 0.3:
            entry["unlisted_are_empty"] = "True"

        def run() -> None:
            setup_logging()
            words = [word for key, value in entry.items() for word in (f"DATASETS.CATALOG.tiny.{key}", value)]
            cfg = load_config(folder / "c.yaml", words)
            dataset = build_train_dataset(cfg)
            report_test_data(cfg, dataset)
            for index in range(min(len(dataset), 3)):
                dataset.image_path(index)

        return Example(name, run, (name, "tiny", "images"))


def build(seed: int, folder: Path) -> Kind:
    return Formats(seed, folder)
