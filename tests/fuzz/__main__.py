"""Feeds changed configurations, annotation files, results, checkpoints and images to the engine.

python -m tests.fuzz --minutes 5
python -m tests.fuzz --examples 2000 --kind config --seed 1
python -m tests.fuzz --kind config --seed 1 --only 123

Each example must be read, or be refused in one line that names the file, in time, without a traceback, without a word
on stderr, and without a change to any file that is not an output. What fails is kept, with the command that repeats it.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.example import Outcome
from tests.fuzz.worker import KINDS, SLOWER, work

SHARES = {"commands": 0.04}  # of the examples that each other kind gets, since one is a whole process
START_SECONDS = 60  # to import torch and to make valid inputs
SHOWN = 20  # faults printed


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--minutes", type=float, default=1.0, help="time for all kinds together (1)")
    amount.add_argument("--examples", type=int, metavar="N", help="instead: N examples of each kind")
    amount.add_argument("--only", type=int, metavar="I", help="instead: example I of --kind")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind; may be repeated")
    parser.add_argument("--seed", type=int, help="repeats a run; by default taken from the clock, and printed")
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds that an example may take (20)")
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz"), help="folder for what fails (outputs/fuzz)")
    args = parser.parse_args(arguments)
    if args.only is not None and len(args.kind or ()) != 1:
        parser.error("--only needs one --kind")
    return args


class Tally:
    """Counts of outcomes, and the faults of each kind by their headings."""

    def __init__(self) -> None:
        self.ways: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.answers: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.seconds: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, outcome: Outcome, how: str) -> None:
        key = (kind, outcome.way)
        self.ways[key]["fault" if outcome.faults else "refused" if outcome.answer else "read"] += 1
        self.answers[key].add(re.sub(r"\W*\d+|'[^']*'|\"[^\"]*\"|/\S+", "", outcome.answer)[:80])
        for fault in outcome.faults:
            self.faults[f"{kind} {_heading(fault)}"].append(how)

    def report(self) -> str:
        lines = [f"{'kind':12} {'way':22} {'read':>7} {'refused':>8} {'messages':>9} {'faults':>7}"]
        for (kind, way), counts in sorted(self.ways.items()):
            answers = len(self.answers[kind, way] - {""})
            numbers = f"{counts['read']:7} {counts['refused']:8} {answers:9} {counts['fault']:7}"
            lines.append(f"{kind:12} {way:22} {numbers}")
        for kind, seconds in self.seconds.items():
            number = sum(sum(counts.values()) for (each, _), counts in self.ways.items() if each == kind)
            lines.append(f"{kind}: {number} examples in {seconds:.1f} s, {number / max(seconds, 1e-9):.1f} per second")
        for heading, hows in sorted(self.faults.items(), key=lambda item: -len(item[1]))[:SHOWN]:
            lines.append(f"\n{len(hows)} x {heading}\n    {hows[0]}")
        if len(self.faults) > SHOWN:
            lines.append(f"\n... and {len(self.faults) - SHOWN} more")
        return "\n".join(lines)


def _heading(fault: str) -> str:
    """What equal faults have in common: the last line of a traceback and the line of ours that it comes from."""
    lines = fault.strip().splitlines()
    if "File" in fault and fault.startswith(("hang", "crash")):  # faulthandler: the innermost call first
        lines.reverse()
    ours = [line.strip() for line in lines if "/engine/" in line and line.strip().startswith("File")]
    place = re.sub(r'^File ".*/engine/', "engine/", ours[-1]).replace('"', "") if ours else ""
    last = f"{lines[0].split(':')[0]}: {lines[-1]}" if len(lines) > 1 else lines[0]
    return f"{re.sub(r'[0-9]+', 'N', last)[:160]}  {place}"


def main() -> int:
    args = parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    kinds = args.kind or KINDS
    print(f"seed {seed}", flush=True)
    tally = Tally()
    for kind in kinds:
        seconds = 60 * args.minutes / len(kinds)
        numbers = range(2**31)
        if args.only is not None:
            numbers, seconds = range(args.only, args.only + 1), math.inf
        elif args.examples is not None:
            numbers, seconds = range(math.ceil(args.examples * SHARES.get(kind, 1))), math.inf
        start = time.monotonic()
        for number, outcome in examples(kind, seed, numbers, args, start + seconds):
            tally.add(kind, outcome, _again(kind, seed, number))
            if args.only is not None:
                print("\n".join([f"{outcome.way}: {outcome.answer or 'read'}", *outcome.faults]))
        tally.seconds[kind] = time.monotonic() - start
    print(tally.report())
    if tally.faults:
        print(f"\nthe files are in {args.keep}")
    return 1 if tally.faults else 0


def examples(
    kind: str, seed: int, numbers: range, args: argparse.Namespace, end: float
) -> Iterator[tuple[int, Outcome]]:
    """(number, outcome) of one example after the other until `end`; a worker that dies is replaced."""
    while numbers:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
            for number, outcome in _from_one_worker(kind, seed, numbers, args.deadline, Path(home)):
                if outcome.faults:
                    _keep(Path(home) / f"{kind}-{number}", args.keep, kind, seed, number, outcome)
                yield number, outcome
                numbers = range(number + 1, numbers.stop)
                if time.monotonic() > end:
                    return


def _from_one_worker(
    kind: str, seed: int, numbers: range, deadline: float, home: Path
) -> Iterator[tuple[int, Outcome]]:
    """(number, outcome) until all are done or the worker dies; the outcome of its last example tells why."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    log = home / "crash.txt"
    process = context.Process(target=work, args=(kind, seed, numbers, deadline, home, log, sender))
    process.start()
    sender.close()
    current = None
    try:
        while True:
            if not receiver.poll(deadline * SLOWER.get(kind, 1) + START_SECONDS):
                raise EOFError
            word, current, *rest = receiver.recv()
            if word == "end":
                yield current, rest[0]
                if current == numbers[-1]:
                    return
                current = None
    except EOFError:
        process.join(5)
        crash = log.read_text() if log.exists() else ""
        if current is None:
            raise SystemExit(f"{kind}: the worker ended between two examples\n{crash}") from None
        what = "hang" if "Timeout" in crash or process.exitcode is None else f"crash {process.exitcode}"
        yield current, Outcome("died", "", [f"{what}: {crash}"])
    finally:
        receiver.close()  # the worker ends when it next reports
        process.join(deadline)
        process.kill()
        process.join()


def _again(kind: str, seed: int, number: int) -> str:
    return f"python -m tests.fuzz --kind {kind} --seed {seed} --only {number}"


def _keep(folder: Path, keep: Path, kind: str, seed: int, number: int, outcome: Outcome) -> None:
    """Copy the files of an example that failed, with what is wrong."""
    target = keep / f"{kind}-{seed}-{number}"
    shutil.rmtree(target, ignore_errors=True)
    if folder.is_dir():
        shutil.copytree(folder, target, symlinks=True)
    target.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([_again(kind, seed, number), f"{outcome.way}: {outcome.answer}", *outcome.faults])
    (target / "FAULT.txt").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
