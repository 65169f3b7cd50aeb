"""The files of a folder and of the folders in it, by suffix."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def files_below(folder: str | Path, suffixes: Collection[str]) -> list[str]:
    """Names relative to `folder`, with slashes, sorted, of the files that have one of the (lower-case) suffixes.

    Hidden files and folders are left out, also a folder that a link leads back to, and those that cannot be opened.
    """
    return sorted(_below(str(folder), "", frozenset(), frozenset(suffixes)))


def _below(folder: str, prefix: str, above: frozenset[str], suffixes: frozenset[str]) -> list[str]:
    real = os.path.realpath(folder)
    if real in above:
        return []
    names: list[str] = []
    try:
        entries = list(os.scandir(folder))
    except (OSError, ValueError):
        return []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names += _below(entry.path, f"{prefix}{entry.name}/", above | {real}, suffixes)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            names.append(prefix + entry.name)
    return names
