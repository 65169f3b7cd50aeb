"""Images that are in several data sets, or several times in one: leakage from training to test.

Shapes: n images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.examined import ExaminedSet
from engine.data.doctor.findings import Example, Finding, declare
from engine.data.doctor.picture_facts import look_alike, near_pairs
from engine.data.doctor.pictures import is_flat

SAME_SET = declare(
    "SPLIT_SAME_SET",
    "warning",
    "Training and test or validation use the same data set: the figures say how well the model has memorised it.",
    "Split the data (tools/split_dataset.py), and test on images that are not trained on.",
)
SAME_FILE = declare(
    "SPLIT_SAME_FILE",
    "error",
    "An image file is in a training set and in a test or validation set.",
    "Remove it from one of them, or split again.",
)
SAME_NAME = declare(
    "SPLIT_SAME_NAME",
    "note",
    "Files in the folders of a training and a test or validation set have the same name.",
    "If names are unique where the images come from, these are the same images.",
)
IDENTICAL = declare(
    "SPLIT_IDENTICAL",
    "error",
    "Two image files, one trained on and one tested on, are equal byte by byte.",
    "Remove one of them, or split again.",
)
NEAR = declare(
    "SPLIT_NEAR_DUPLICATE",
    "warning",
    "An image in a training set and one in a test or validation set look the same.",
    "Look at the pairs; keep copies, crops and frames of one video in the same split (tools/split_dataset.py --group).",
)
COPIES = declare(
    "IMAGE_IDENTICAL",
    "note",
    "Image files of one data set are equal byte by byte.",
    "Keep one of them, unless the repeats are wanted.",
)
NEAR_COPIES = declare(
    "IMAGE_NEAR_DUPLICATE",
    "note",
    "Images of one data set look the same.",
    "Keep them in the same split (tools/split_dataset.py --group), and do not count them as different images.",
)


@CHECKS.register("splits")
def check_splits(case: Case) -> Iterator[Finding]:
    """Names and paths of files, without opening them."""
    for each in case.datasets:
        if "train" in each.roles and set(each.roles) & {"val", "test"}:
            yield SAME_SET.finding("it is trained on and tested on", each.num_images, each.name)
    for train, test in _pairs(case):
        paths = {_real(train, k): k for k in range(train.num_images)}
        same = [k for k in range(test.num_images) if _real(test, k) in paths]
        if same:
            message = f"{len(same)} of its {test.num_images} images are files of {train.name}"
            yield SAME_FILE.finding(message, len(same), test.name, test.images(np.array(same)))
        names = {Path(name).name for name in train.file_names()}
        common = [k for k, name in enumerate(test.file_names()) if Path(name).name in names]
        if len(common) > len(same):
            message = f"{len(common)} of its {test.num_images} file names are in {train.name} too"
            yield SAME_NAME.finding(message, len(common), test.name, test.images(np.array(common)))


@CHECKS.register("duplicates")
def check_duplicates(case: Case) -> Iterator[Finding]:
    """Equal and similar images, within and across data sets, among those that were opened."""
    sets = [each for each in case.datasets if each.name in case.pictures]
    places = [(each, k) for each in sets for k in range(len(case.pictures[each.name].looks))]
    looks = [case.pictures[each.name].looks[k] for each, k in places]
    by_digest: dict[bytes, list[int]] = {}
    for index, look in enumerate(looks):
        if look.digest:
            by_digest.setdefault(look.digest, []).append(index)
    groups = [group for group in by_digest.values() if len(group) > 1]
    equal = [(group[0], other) for group in groups for other in group[1:]]
    equal += [pair for group in groups for pair in _across(group, places)]
    shown = [k for k, look in enumerate(looks) if look.digest and not is_flat(look)]
    near = [(shown[a], shown[b]) for a, b in near_pairs([looks[k].bits for k in shown])]
    near = [
        (a, b) for a, b in near if looks[a].digest != looks[b].digest and look_alike(looks[a].thumb, looks[b].thumb)
    ]
    for pairs, across, within, words in (
        (dict.fromkeys(equal), IDENTICAL, COPIES, "equal byte by byte"),
        (near, NEAR, NEAR_COPIES, "nearly the same"),
    ):
        by_sets: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for a, b in pairs:
            by_sets.setdefault((places[a][0].name, places[b][0].name), []).append((a, b))
        for (first, second), found in by_sets.items():
            one, other = places[found[0][0]][0], places[found[0][1]][0]
            examples = [example for a, b in found[:3] for example in _pair(places[a], places[b])]
            if first == second:
                yield within.finding(f"{len(found)} pairs of images are {words}", len(found), first, examples)
            elif _leaks(one, other):
                message = f"{len(found)} pairs of images of {first} and {second} are {words}"
                yield across.finding(message, len(found), second, examples)


def _across(group: list[int], places: list[tuple[ExaminedSet, int]]) -> Iterator[tuple[int, int]]:
    """One pair of each two data sets in a group of equal files."""
    first_of: dict[str, int] = {}
    for index in group:
        first_of.setdefault(places[index][0].name, index)
    yield from combinations(first_of.values(), 2)


def _pair(a: tuple[ExaminedSet, int], b: tuple[ExaminedSet, int]) -> list[Example]:
    names = [f"{examined.name}: {examined.file_name(index)}" for examined, index in (a, b)]
    return [a[0].image(a[1], f"like {names[1]}"), b[0].image(b[1], f"like {names[0]}")]


def _leaks(a: ExaminedSet, b: ExaminedSet) -> bool:
    return any(
        "train" in one.roles and set(other.roles) & {"val", "test"} and one.name != other.name
        for one, other in ((a, b), (b, a))
    )


def _pairs(case: Case) -> Iterator[tuple[ExaminedSet, ExaminedSet]]:
    for train in case.having("train"):
        for test in case.datasets:
            if set(test.roles) & {"val", "test"} and test.name != train.name:
                yield train, test


def _real(examined: ExaminedSet, index: int) -> str:
    """The path of an image, without `..`; links are not followed, which would take a look at each file."""
    path = examined.dataset.image_path(index)
    return f"{examined.name}/{index}" if path is None else os.path.abspath(path)
