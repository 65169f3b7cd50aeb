"""The process that runs examples of one kind, one after the other, and reports each on its connection.

A process of its own, because an example may crash it, block it or use up its memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.example import Kind, Outcome, captured, judge

KINDS = ("config", "annotations", "formats", "results", "checkpoints", "images", "commands")
SLOWER = {"commands": 6}  # of the deadline, to start a process on a busy machine
MEMORY = 6 << 30  # bytes of address space that a worker may add to what its libraries take


def work(
    kind: str, seed: int, numbers: Iterable[int], deadline: float, home: Path, log: Path, results: Connection
) -> None:
    """Send ("start", number), then ("end", number, outcome) for each example; `log` gets the stack of a crash."""
    os.environ.update(HOME=str(home), TMPDIR=str(home), OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    tempfile.tempdir = str(home)
    with open(log, "w") as crash, contextlib.suppress(BrokenPipeError):  # nobody listens any more
        faulthandler.enable(crash)
        warnings.simplefilter("ignore")  # `judge` hears them
        with captured():
            inputs = build(kind, seed, home)
        limit_memory()
        for number in numbers:
            folder = home / f"{kind}-{number}"
            folder.mkdir()
            os.chdir(folder)
            results.send(("start", number))
            faulthandler.dump_traceback_later(deadline * SLOWER.get(kind, 1), exit=True, file=crash)
            try:
                example = inputs.example(number, folder)
            except Exception:  # a mistake in this package; the other examples are still worth their time
                outcome = Outcome("(not made)", "", [f"no example: {traceback.format_exc()}"])
            else:
                outcome = judge(example, folder)
            faulthandler.cancel_dump_traceback_later()
            os.chdir(home)
            results.send(("end", number, outcome))
            if not outcome.faults:  # else its files are needed
                shutil.rmtree(folder, ignore_errors=True)
    results.close()


def build(kind: str, seed: int, home: Path) -> Kind:
    """The kind of that name, with its valid inputs in a folder below `home`."""
    folder = home / "valid"
    folder.mkdir(exist_ok=True)
    sys.stdout.reconfigure(errors="backslashreplace")  # as `run_tool` does
    sys.stderr.reconfigure(errors="backslashreplace")
    return importlib.import_module(f"tests.fuzz.{kind}" if kind in KINDS else kind).build(seed, folder)


def limit_memory() -> None:
    """An allocation of many gigabytes fails, so that it is a fault of the example and not the end of the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
    if pages:
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
