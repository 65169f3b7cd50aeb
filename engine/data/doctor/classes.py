"""Classes: without boxes, rare, alike, background, and ids that are shifted.

Shapes: K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.examined import MANY, ExaminedSet
from engine.data.doctor.findings import Example, Finding, declare
from engine.data.formats.values import whole_number
from engine.errors import listed, shown
from engine.spelling import normal_name

_FEW = 10  # boxes of a class, too few to learn from
_UNEVEN, _VERY_UNEVEN = 20, 100  # most boxes of a class / fewest
_SIDES = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
_FAR_APART, _CLOSE = 0.4, 0.1  # total variation between the shares of classes in two data sets
_ENOUGH = 50  # boxes, for these shares to mean something

EMPTY = declare(
    "CLASS_EMPTY",
    "warning",
    "A class has no box in a data set.",
    "If it should have some, look at its name and id; else leave it out with DATASETS.CLASSES.",
)
RARE = declare(
    "CLASS_RARE",
    "note",
    f"A class has fewer than {_FEW} boxes in the training sets.",
    "Label more of them, repeat their images (DATALOADER.REPEAT_THRESHOLD), or leave the class out (DATASETS.CLASSES).",
)
UNEVEN = declare(
    "CLASS_UNEVEN",
    "note",
    f"The most frequent class has {_UNEVEN} times as many boxes as the rarest. A warning from {_VERY_UNEVEN} times on.",
    "Set DATALOADER.REPEAT_THRESHOLD, which repeats images of rare classes, or label more of them.",
)
ONLY_ONE = declare(
    "CLASS_ONLY_ONE",
    "warning",
    "All boxes have the same class although the file has several.",
    "Look whether the classes were lost in the conversion; else name the class in DATASETS.CLASSES.",
)
ALIKE = declare(
    "CLASS_ALIKE",
    "warning",
    "The names of two classes differ only in case, blanks, separators or a plural s.",
    "If they mean the same, give them the same name (DATASETS.CLASS_MAP).",
)
NUMBERED = declare(
    "CLASS_NUMBERED",
    "note",
    "All class names are numbers: the real names were lost, or ids were written in their place.",
    "Write the names into `categories`.",
)
FLIPPED = declare(
    "CLASS_FLIPPED",
    "warning",
    "A class name says left or right, but images are mirrored in training.",
    "Set INPUT.HORIZONTAL_FLIP_PROB_TRAIN 0, and use no step of INPUT.AUGMENTATIONS that mirrors.",
)
UNTRAINED = declare(
    "CLASS_UNTRAINED",
    "warning",
    "A test or validation set has boxes of a class that the training sets have none of.",
    "Split the data so that each class is in both (tools/split_dataset.py --stratify), or leave the class out.",
)
UNTESTED = declare(
    "CLASS_UNTESTED",
    "note",
    "The training sets have boxes of a class that no test or validation set has.",
    "Split the data so that each class is in both (tools/split_dataset.py --stratify); without objects the class has "
    "no figures and no threshold.",
)
IDS_DIFFER = declare(
    "CLASS_IDS_DIFFER",
    "note",
    "Two data sets give the same class different ids. Classes are matched by name, so this is harmless here.",
    "Take care with other programs that compare category ids.",
)
SHIFTED = declare(
    "CLASS_SHIFTED",
    "warning",
    "Class ids look shifted by one. An error if boxes name an id just beyond those of `categories`.",
    "Compare `category_id` with `categories`: one of them begins at 0, the other at 1.",
)
DIFFERENT = declare(
    "CLASS_SHARES_DIFFER",
    "note",
    "The shares of the classes in a test or validation set are far from those in the training sets.",
    "Split the data at random, stratified by class (tools/split_dataset.py --stratify).",
)


@CHECKS.register("classes")
def check_classes(case: Case) -> Iterator[Finding]:
    """The classes of each data set."""
    for examined in case.datasets:
        yield from _numbers(examined, is_trained="train" in examined.roles)
        yield from _names(examined, is_flipped=bool(case.plan and case.plan.flips))


@CHECKS.register("classes_of_splits")
def check_classes_of_splits(case: Case) -> Iterator[Finding]:
    """The classes of data sets against each other."""
    train = case.having("train")
    tests = [each for each in case.datasets if set(each.roles) & {"val", "test"}]
    for a, b in combinations(case.datasets, 2):
        yield from _ids(a, b)
    if not train or not tests:
        return
    names = train[0].class_names
    trained = _counts(train, names)
    for examined in tests:
        tested = _counts([examined], names)
        if lacking := [name for name, here, there in zip(names, tested, trained, strict=True) if here and not there]:
            message = f"the training sets have no box of its classes {_some(lacking)}"
            yield UNTRAINED.finding(message, len(lacking), examined.name)
        yield from _shares(trained, tested, examined.name)
    tested = _counts(tests, names)
    if lacking := [name for name, here, there in zip(names, trained, tested, strict=True) if here and not there]:
        yield UNTESTED.finding(f"no validation or test set has boxes of {_some(lacking)}", len(lacking))


def shifted_ids(data: Any, dataset: str = "") -> Finding | None:
    """Whether the ids that annotations of a COCO dictionary use are those of its categories, shifted by one."""
    rows = [data.get(key) if isinstance(data, dict) else None for key in ("categories", "annotations")]
    if not all(isinstance(each, list) for each in rows):
        return None
    declared, used = (
        {whole_number(row.get(key)) for row in each if isinstance(row, dict)} - {None}
        for each, key in zip(rows, ("id", "category_id"), strict=True)
    )
    beyond = used - declared
    for step in (1, -1):
        if declared and len(beyond) == 1 and {each + step for each in declared} >= used:
            message = (
                f"category ids are {_span(declared)} in `categories` but {_span(used)} in `annotations`: they look "
                "shifted by one"
            )
            example = Example(text=f"category_id {beyond.pop()}")
            return SHIFTED.finding(message, len(used), dataset, [example], "error")
    return None


def _span(ids: set[int]) -> str:
    return f"{min(ids)} to {max(ids)}"


def _numbers(examined: ExaminedSet, is_trained: bool) -> Iterator[Finding]:
    name, per_class = examined.name, dict(zip(examined.class_names, examined.per_class.tolist(), strict=True))
    per_class = {each: per_class[each] for each in examined.kept_classes}
    if not sum(per_class.values()):
        return
    present = {each: count for each, count in per_class.items() if count}
    if lacking := [each for each in per_class if each not in present]:
        yield EMPTY.finding(f"classes without boxes: {_some(lacking)}", len(lacking), name)
    if len(per_class) > 1 and len(present) == 1 and examined.num_boxes >= MANY:
        message = f"all {examined.num_boxes} boxes are {shown(*present)}, of {len(per_class)} classes"
        yield ONLY_ONE.finding(message, examined.num_boxes, name)
    if not is_trained:
        return
    if rare := sorted((count, each) for each, count in present.items() if count < _FEW):
        counts = ", ".join(f"{shown(each)} {count}" for count, each in rare[:10])
        yield RARE.finding(f"classes with fewer than {_FEW} boxes: {counts}{_more(rare)}", len(rare), name)
    low, high = min(present, key=present.get), max(present, key=present.get)
    if present[high] >= _UNEVEN * present[low]:
        severity = "warning" if present[high] >= _VERY_UNEVEN * present[low] else ""
        message = f"{shown(high)} has {present[high]} boxes, {shown(low)} {present[low]}"
        yield UNEVEN.finding(message, present[high] // present[low], name, severity=severity)


def _names(examined: ExaminedSet, is_flipped: bool) -> Iterator[Finding]:
    name, classes = examined.name, examined.kept_classes
    groups: dict[str, list[str]] = {}
    for each in classes:
        groups.setdefault(_squeezed(each), []).append(each)
    if alike := [group for group in groups.values() if len(group) > 1]:
        message = f"class names that may mean the same: {'; '.join(map(listed, alike[:5]))}"
        yield ALIKE.finding(message, len(alike), name)
    if len(classes) > 1 and all(each.strip().isdecimal() for each in classes):
        yield NUMBERED.finding(f"its classes are called {_some(classes)}", len(classes), name)
    if is_flipped and (sided := [each for each in classes if _SIDES.search(each.replace("_", " "))]):
        yield FLIPPED.finding(f"images are mirrored, but classes name a side: {_some(sided)}", len(sided), name)


def _squeezed(name: str) -> str:
    letters = "".join(filter(str.isalnum, normal_name(name).casefold())) or name
    return letters[:-1] if len(letters) > 3 and letters.endswith("s") and not letters.endswith("ss") else letters


def _ids(a: ExaminedSet, b: ExaminedSet) -> Iterator[Finding]:
    first, second = (dict(zip(each.table.category_names, each.table.category_ids, strict=True)) for each in (a, b))
    own = [set(each.dataset.category_ids) for each in (a, b)]
    common = [name for name in first if name in second and first[name] in own[0] and second[name] in own[1]]
    common = [name for name in common if _has_boxes(a, name) and _has_boxes(b, name)]
    differing = [name for name in common if first[name] != second[name]]
    if not differing:
        return
    offsets = {_offset(first[name], second[name]) for name in differing}
    examples = [Example(text=f"{name}: {first[name]} and {second[name]}") for name in differing[:5]]
    code, ending = IDS_DIFFER, "have different ids"
    if len(common) > 1 and len(differing) == len(common) and offsets <= {1, -1} and len(offsets) == 1:
        code, ending = SHIFTED, "have ids that differ by one"
    yield code.finding(f"{len(differing)} classes of {a.name} and {b.name} {ending}", len(differing), "", examples)


def _has_boxes(examined: ExaminedSet, name: str) -> bool:
    return name in examined.class_names and bool(examined.per_class[examined.class_names.index(name)])


def _offset(first: int | str, second: int | str) -> int | None:
    return second - first if isinstance(first, int) and isinstance(second, int) else None


def _counts(examined: Sequence[ExaminedSet], names: Sequence[str]) -> np.ndarray:
    """(K,) boxes of all of them, in the order of `names`."""
    totals: Mapping[str, int] = {}
    for each in examined:
        for name, count in zip(each.class_names, each.per_class.tolist(), strict=True):
            totals = {**totals, name: totals.get(name, 0) + count}
    return np.array([totals.get(name, 0) for name in names])


def _shares(trained: np.ndarray, tested: np.ndarray, name: str) -> Iterator[Finding]:
    """Whether the classes of a test set have the shares of the neighbouring ones in training."""
    if min(trained.sum(), tested.sum()) < _ENOUGH:
        return
    p, q = trained / trained.sum(), tested / tested.sum()
    apart = np.abs(p - q).sum() / 2
    if apart < _FAR_APART:
        return
    for step in (1, -1):
        moved = np.roll(q, step)
        if len(p) > 2 and np.abs(p - moved).sum() / 2 < _CLOSE:
            yield SHIFTED.finding("its classes have the shares that their neighbours have in training", len(p), name)
            return
    yield DIFFERENT.finding(f"its shares of the classes differ from training by {apart:.0%}", 1, name)


def _some(names: Sequence[str]) -> str:
    return f"{listed(names[:10])}{_more(names)}"


def _more(names: Sequence[Any]) -> str:
    return f" and {len(names) - 10} more" if len(names) > 10 else ""
