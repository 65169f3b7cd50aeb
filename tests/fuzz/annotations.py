"""Annotation files: a data set is built from each, trained on and tested on without a model."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import yaml

from engine.assembly.data import (
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    report_test_data,
)
from engine.assembly.doctor import summarize_train_data
from engine.config import load_config
from engine.log import setup_logging
from tests.fuzz.example import Example, Kind
from tests.fuzz.json_text import changed_json
from tests.fuzz.mutate import TEXTS
from tests.fuzz.valid import CLASS_NAMES, CONFIG, coco, random_of, write_dataset

BATCHES = 2


class Annotations:
    """See the text at the head of the file."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.valid = seed, folder
        write_dataset(folder)
        (folder / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("annotations", self.seed, number)
        shutil.copytree(self.valid, folder, dirs_exist_ok=True)
        kind, data = changed_json(random, coco())
        (folder / "tiny.json").write_bytes(data)
        words = []
        if random.random() < 0.2:
            words += ["DATALOADER.FILTER_EMPTY", str(random.random() < 0.5)]
        if random.random() < 0.2:
            classes = random.sample(CLASS_NAMES, random.randint(1, len(CLASS_NAMES)))
            words += [
                "DATASETS.CLASSES",
                str(tuple(classes)),
                "DATASETS.OTHER_CLASSES",
                random.choice(["drop", "ignore"]),
            ]
        if random.random() < 0.05:
            key = random.choice(["DATASETS.ROOT", "DATASETS.CATALOG.tiny.ann_file", "DATASETS.CATALOG.tiny.img_dir"])
            words += [key, random.choice(TEXTS).replace("\0", "")]
            kind = "paths"

        def run() -> None:
            setup_logging()
            cfg = load_config(folder / "c.yaml", words)
            dataset = build_train_dataset(cfg)
            report_test_data(cfg, dataset)  # counts, and refuses nothing
            train = build_train_loader(cfg, dataset=dataset)
            test = build_test_loader(cfg, "tiny", train.dataset.class_names)
            for loader in (train, test):
                for _ in islice(loader, BATCHES):
                    pass
            summarize_train_data(cfg, dataset)

        return Example(kind, run, ("tiny", "images", "DATASETS", "command line"))


def build(seed: int, folder: Path) -> Kind:
    return Annotations(seed, folder)
