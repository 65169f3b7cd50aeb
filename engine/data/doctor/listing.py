"""Image files that lie in the folders of data sets and that no data set lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.data.dataset import DetectionDataset
from engine.data.image_file import IMAGE_SUFFIXES


def unlisted_files(datasets: Sequence[DetectionDataset]) -> dict[str, list[str]]:
    """Data set -> names of image files in the folders of its images that none of `datasets` lists, sorted.

    A folder that several data sets share belongs to the first.
    """
    listed: dict[str, set[str]] = {}  # folder -> names of its files in a data set
    owner: dict[str, str] = {}
    for dataset in datasets:
        for index in range(len(dataset)):
            path = dataset.image_path(index)
            if path is not None:
                folder = os.path.dirname(path)
                listed.setdefault(folder, set()).add(os.path.basename(path))
                owner.setdefault(folder, dataset.name)
    found: dict[str, list[str]] = {}
    for folder, names in listed.items():
        present: list[str] = []
        with suppress(OSError):
            present = [name for name in os.listdir(folder) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if others := sorted(set(present) - names):
            found.setdefault(owner[folder], []).extend(others)
    return found
