"""`DATASETS.CATALOG`, the one free mapping of the tree: name -> {img_dir, ann_file} and, if need be, type."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from engine.config.schema import CATALOG_FIELDS, CATALOG_KEY, CATALOG_TYPE_FIELD, DATASET_TYPES
from engine.config.spelling import nearest_word
from engine.config.yaml_file import Entry, Group

_FIELDS = (*CATALOG_FIELDS, CATALOG_TYPE_FIELD)
_MEANINGS = {"img_dir": "the folder of its images", "ann_file": "its COCO JSON file"}


class BadCatalogError(ValueError):
    """A catalog that is none; the message goes on after the place."""


def as_entries(entry: Entry) -> Group:
    """The data sets of a catalog that stands in YAML, on the command line as a literal, or in code
    as a dict.

    Raises:
        BadCatalogError: it is no mapping.
    """
    value = entry.value
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = entry.value
    if value is None:
        return Group()
    if isinstance(value, Mapping):
        value = _group_of(value, entry.where)
    if not isinstance(value, Group):
        raise BadCatalogError(f"{CATALOG_KEY} must map names to {{img_dir: FOLDER, ann_file: FILE}}, got {value!r}")
    return value


class BadFieldError(ValueError):
    """A field that is none; the message is complete."""


def fields(entry: Entry) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """The (path below the catalog, value, place) of what one data set declares; first the data set
    itself.

    Raises:
        BadFieldError: it is no group, or holds a field that data sets do not have.
    """
    key = f"{CATALOG_KEY}.{entry.name}"
    if not isinstance(entry.value, Group):
        raise BadFieldError(f"{entry.where}: {key} must be {{img_dir: FOLDER, ann_file: FILE}}, got {entry.value!r}")
    yield (entry.name,), {}, entry.where
    for each in entry.value:
        if each.name not in _FIELDS:
            nearest = nearest_word(each.name, _FIELDS)
            hint = f"did you mean {nearest}?" if nearest else "a data set has img_dir and ann_file"
            raise BadFieldError(f"{each.where}: unknown key {key}.{each.name}; {hint}")
        what = "a name" if each.name == CATALOG_TYPE_FIELD else "a path"
        if not isinstance(each.value, str) or not each.value:
            raise BadFieldError(f"{each.where}: {key}.{each.name} must be {what}, got {each.value!r}")
        yield (entry.name, each.name), each.value, each.where


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


def _group_of(mapping: Mapping[str, Any], where: str) -> Group:
    return Group(
        Entry(name, _group_of(value, where) if isinstance(value, Mapping) else value, where)
        for name, value in mapping.items()
    )
