"""The range of values of a data set's images of more than 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from engine.data.dataset import LabelledImages
from engine.data.image_file import collected_damage, may_be_deep, read_samples
from engine.data.reading import Reading
from engine.data.value_range import ValueRange, measured_range
from engine.errors import InputError
from engine.log import get_logger

logger = get_logger(__name__)

_MOST_HEADERS, _MOST_MEASURED = 1000, 50
"""Files that are looked at, and those of them that are read."""


def range_of_dataset(dataset: LabelledImages) -> ValueRange | None:
    """The range of values of the images of more than 8 bits, or floats, in a spread sample; None if it has none.

    Looks at the headers of at most `_MOST_HEADERS` files, few of those named like JPEGs, and reads at most
    `_MOST_MEASURED` of the deep ones. What cannot be read is left out; it is reported when it is used.
    """
    named: dict[bool, list[Path]] = {False: [], True: []}
    for index in range(len(dataset)):
        path = dataset.image_path(index)
        if path is None:  # a data set of the user's own that does not read files
            return None
        named[path.suffix.lower() in (".jpg", ".jpeg")].append(path)
    candidates = _spread(named[False], _MOST_HEADERS) + _spread(named[True], _MOST_HEADERS // 10)
    deep = []
    for path in candidates:
        with suppress(InputError):
            if may_be_deep(path):
                deep.append(path)
    kinds: set[str] = set()
    value_range = measured_range(_samples_of(_spread(deep, _MOST_MEASURED), dataset.reading, kinds))
    if len(kinds) > 1:
        logger.warning("%s: some images hold floats, others integers: one range holds for both", dataset.name)
    return value_range


def _spread(items: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of `items`, evenly over their order."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else list(items)


def _samples_of(paths: Sequence[Path], reading: Reading, kinds: set[str]) -> Iterator[np.ndarray]:
    """The deep samples of each file that can be read; whether they are floats or integers goes to `kinds`."""
    for path in paths:
        try:
            with collected_damage():  # reported when the image is used
                samples = read_samples(path, reading=reading)
        except InputError:
            continue
        if samples.dtype != np.uint8:
            kinds.add("floats" if samples.dtype.kind == "f" else "integers")
            yield samples
