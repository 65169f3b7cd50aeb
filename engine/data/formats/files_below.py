"""The files of a folder and of the folders in it, by suffix."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from engine.log import warn_once


def files_below(folder: str | Path, suffixes: Collection[str]) -> list[str]:
    """Names relative to `folder`, with slashes, sorted, of the files that have one of the (lower-case) suffixes.

    Hidden files and folders are left out, also a folder that a link leads back to. Those that cannot be opened are left
    out with a warning; there is none of a folder that does not exist.
    """
    return sorted(_below(str(folder), "", frozenset(), frozenset(suffixes)))


def _below(folder: str, prefix: str, above: frozenset[str], suffixes: frozenset[str]) -> list[str]:
    real = os.path.realpath(folder)
    if real in above:
        return []
    names: list[str] = []
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    except OSError as error:
        warn_once(f"{folder}: cannot be opened ({error.strerror or error}); what it holds is not read")
        return []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names += _below(entry.path, f"{prefix}{entry.name}/", above | {real}, suffixes)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            names.append(prefix + entry.name)
    return names
