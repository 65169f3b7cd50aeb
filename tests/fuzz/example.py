"""One example: files that were made, something that reads them, and what may come of it."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import sys
import tempfile
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.errors import InputError

MAX_LINE = 1500  # characters of a message that are still one line to a reader
MAX_MEMORY = 1 << 30  # bytes that one small input may cost; the largest model and image here take a tenth

Tree = dict[str, tuple[int, int, int]]
_FOLDER = (0, 0, 0)


@dataclass
class Example:
    """What to run on the files of one folder.

    Attributes:
        way: which code is exercised, for the counts ("load_config", "convert", ...).
        run: reads the files; may raise `InputError` and nothing else.
        inputs: a message names one of these (parts of paths, or words such as "command line").
        outputs: files and folders, relative to the folder, that a success may create or replace.
    """

    way: str
    run: Callable[[], object]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ()


class Kind(Protocol):
    """A kind of input. The constructor prepares valid inputs in a folder of its own."""

    def example(self, number: int, folder: Path) -> Example:
        """Writes the files of an example to `folder`; the same ones for the same number."""
        ...


@dataclass
class Outcome:
    """How an example ended; `faults` says what is wrong with that, each with a heading for the counts."""

    way: str
    answer: str = ""  # "" for success, else the message
    faults: list[str] = field(default_factory=list)


def judge(example: Example, folder: Path) -> Outcome:
    """Run an example in `folder`, its working directory, and compare all that it did with what it may do."""
    outcome = Outcome(example.way)
    before = _tree(folder)
    memory = _reset_peak()
    with captured() as streams:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                example.run()
        except InputError as error:
            outcome.answer = str(error) or "(no message)"
            outcome.faults += _message_faults(str(error), example.inputs)
        except BaseException:
            outcome.faults.append(f"traceback: {traceback.format_exc()}")
    if noise := streams["stderr"]:
        outcome.faults.append(f"stderr: {noise}")
    if (used := _peak() - memory) > MAX_MEMORY:
        outcome.faults.append(f"memory: {used >> 20} MiB for files of {sum(size for size, _, _ in before.values())} B")
    allowed = example.outputs if not outcome.answer else tuple(f"{name}/log.txt" for name in example.outputs)
    outcome.faults += _changes(before, _tree(folder), allowed)
    return outcome


def _message_faults(message: str, inputs: tuple[str, ...]) -> Iterator[str]:
    """A message is one line, or one line per mistake of a configuration, and each names its place."""
    for line in message.split("\n"):
        if strange := [char for char in line if unicodedata.category(char) in ("Cc", "Zl", "Zp")]:
            yield f"message: holds {strange[0]!a}: {line[:MAX_LINE]!a}"
        if len(line) > MAX_LINE:
            yield f"message: {len(line)} characters: {line[:MAX_LINE]!a}"
        if not any(name in line for name in inputs):
            yield f"message: names none of {', '.join(inputs)}: {line[:MAX_LINE]!a}"


def _tree(folder: Path) -> Tree:
    """Size, time of change and inode of everything below a folder; of a folder itself none of them."""
    found: Tree = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            is_folder = stat.S_ISDIR(status.st_mode)
            entry = _FOLDER if is_folder else (status.st_size, status.st_mtime_ns, status.st_ino)
            found[os.path.relpath(path, folder)] = entry
    return found


def _changes(before: Tree, after: Tree, allowed: tuple[str, ...]) -> Iterator[str]:
    """What differs between two trees outside `allowed` and the folders that lead to it."""

    def is_allowed(path: str) -> bool:
        is_folder = {before.get(path, _FOLDER), after.get(path, _FOLDER)} == {_FOLDER}
        above = is_folder and any(each.startswith(f"{path}/") for each in allowed)
        return above or any(path == each or path.startswith(f"{each}/") for each in allowed)

    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path) and not is_allowed(path):
            what = "created" if path not in before else "deleted" if path not in after else "changed"
            yield f"files: {what} {path!a}"


@contextlib.contextmanager
def captured() -> Iterator[dict[str, str]]:
    """What the block writes to stdout and stderr, also from C."""
    texts: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(tempfile.TemporaryFile()) for name in ("stdout", "stderr")}
        kept = {}
        for name, file in files.items():
            number = {"stdout": 1, "stderr": 2}[name]
            getattr(sys, name).flush()
            kept[number] = os.dup(number)
            os.dup2(file.fileno(), number)
        try:
            yield texts
        finally:
            for number, copy in kept.items():
                getattr(sys, {1: "stdout", 2: "stderr"}[number]).flush()
                os.dup2(copy, number)
                os.close(copy)
            for name, file in files.items():
                file.seek(0)
                texts[name] = file.read(20000).decode("utf-8", "replace")


def _reset_peak() -> int:
    """Memory in use now, in bytes; the peak begins anew where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
