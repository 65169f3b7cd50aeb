"""`DATASETS.CATALOG`: name -> {img_dir, ann_file} and, if need be, type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.config.coerce import BadValueError
from engine.config.free import FreeMapping
from engine.config.schema import CATALOG_FIELDS, CATALOG_KEY, CATALOG_TYPE_FIELD, DATASET_TYPES
from engine.config.spelling import nearest_word

_MEANINGS = {"img_dir": "the folder of its images", "ann_file": "its COCO JSON file"}


def _text(what: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise BadValueError(f"must be {what}, got {value!r}")
        return value

    return read


CATALOG = FreeMapping(
    CATALOG_KEY,
    names="names",
    form="{img_dir: FOLDER, ann_file: FILE}",
    readers={**{field: _text("a path") for field in CATALOG_FIELDS}, CATALOG_TYPE_FIELD: _text("a name")},
)


def missing_fields(catalog: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key of the data set, what it lacks) after everything is merged."""
    for name, data_set in catalog.items():
        for field in CATALOG_FIELDS:
            if field not in data_set:
                key = f"{CATALOG_KEY}.{name}"
                yield key, f"{key} lacks {field}, {_MEANINGS[field]}"


def unknown_types(catalog: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of types that are not ours; for configurations without `IMPORTS`."""
    for name, data_set in catalog.items():
        type_name, key = (
            data_set.get(CATALOG_TYPE_FIELD, DATASET_TYPES[0]),
            f"{CATALOG_KEY}.{name}.{CATALOG_TYPE_FIELD}",
        )
        if type_name not in DATASET_TYPES:
            nearest = nearest_word(type_name, DATASET_TYPES)
            hint = f"; did you mean {nearest}?" if nearest else ""
            known = ", ".join(DATASET_TYPES)
            yield key, f"{key} must be {known}, or registered by a module of IMPORTS, got {type_name!r}{hint}"
