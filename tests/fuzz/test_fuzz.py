"""Some seconds of `make fuzz` with the same examples each time, and what the harness itself must notice."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InputError
from tests.fuzz.__main__ import Tally, examples
from tests.fuzz.example import Example, Outcome, judge

REPOSITORY = Path(__file__).resolve().parents[2]
NUMBERS = [40, pytest.param(150, marks=pytest.mark.nightly)]  # of each kind; 150 take about a minute
SEED = 1


@pytest.mark.parametrize("number", NUMBERS)
def test_changed_inputs(tmp_path: Path, number: int) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--examples",
        str(number),
        "--seed",
        str(SEED),
        "--keep",
        str(tmp_path),
    ]
    done = subprocess.run([*command, "--deadline", "120"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"config: {number} examples" in done.stdout
    assert not list(tmp_path.iterdir())


def refuse(message: str) -> Callable[[], None]:
    def run() -> None:
        raise InputError(message)

    return run


def write(path: str) -> Callable[[], None]:
    return lambda: Path(path).write_text("other")


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (lambda: None, None),
        (write("out/new"), None),
        (refuse("a.txt:3: wrong"), None),
        (refuse("something is wrong"), "message: names none"),
        (refuse("a.txt: wrong\nand more"), "message: names none"),
        (refuse("a.txt: " + "x" * 2000), None),  # an error shortens what it says
        (lambda: 1 / 0, "traceback: "),
        (lambda: sys.exit(2), "traceback: "),
        (lambda: os.write(2, b"oops"), "stderr: oops"),
        (write("a.txt"), "files: changed 'a.txt'"),
        (write("b.txt"), "files: created 'b.txt'"),
        (lambda: Path("a.txt").unlink(), "files: deleted 'a.txt'"),
        (lambda: [bytes(2**30), b"x" * 2**30 + b"y"], "memory: "),
    ],
)
def test_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object], fault: str | None) -> None:
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    outcome = judge(Example("way", run, ("a.txt",), ("out",)), tmp_path)
    assert [each[: len(fault)] for each in outcome.faults] == [fault] if fault else not outcome.faults


def test_a_refusal_leaves_the_outputs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run() -> None:
        Path("out").write_text("half")
        raise InputError("a.txt is wrong")

    assert judge(Example("way", run, ("a.txt",), ("out",)), tmp_path).faults == ["files: created 'out'"]


def test_examples_follow_from_seed_and_number(tmp_path: Path) -> None:
    from tests.fuzz import annotations

    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name / "valid").mkdir(parents=True)
        (tmp_path / name / "it").mkdir()
        kind = annotations.build(seed, tmp_path / name / "valid")
        kind.example(7, tmp_path / name / "it")
        made.append((tmp_path / name / "it" / "tiny.json").read_bytes())
    assert made[0] == made[1] != made[2]


def test_equal_faults_are_counted_together() -> None:
    tally = Tally()
    for line in (3, 4):
        tally.add("config", Outcome("tree", "", [f"stderr: warning {line}"]), f"again {line}")
    tally.add("config", Outcome("tree", "c.yaml:3: wrong"), "")
    tally.add("config", Outcome("tree"), "")
    text = tally.report()
    assert "2 x config stderr: warning N" in text and "again 3" in text and "again 4" not in text
    assert text.splitlines()[1].split() == ["config", "tree", "1", "1", "1", "2"]


@pytest.mark.parametrize(("deed", "word"), [("time.sleep(600)", "hang"), ("os._exit(9)", "crash 9")])
def test_a_worker_that_hangs_or_dies_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, word: str
) -> None:
    (tmp_path / "second_never_ends.py").write_text(
        f"""
import os, time
from tests.fuzz.example import Example

class Kind:
    def example(self, number, folder):
        (folder / "made").write_text("")
        return Example("way", lambda: {deed} if number == 1 else None, ())

def build(seed, folder):
    return Kind()
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    args = Namespace(keep=tmp_path / "kept", deadline=3.0)
    found = dict(examples("second_never_ends", 1, range(3), args, math.inf))
    assert [found[0].faults, found[2].faults] == [[], []]
    assert found[1].faults[0].startswith(word)
    kept = tmp_path / "kept" / "second_never_ends-1-1"
    assert sorted(path.name for path in kept.iterdir()) == ["FAULT.txt", "made"]
    assert "--only 1" in (kept / "FAULT.txt").read_text()
