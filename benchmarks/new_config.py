"""tools/new_config.py on real data, without an edit: what the models reach that its configurations train.

    python benchmarks/new_config.py --data $DATA [--only bccd] [--minutes 8] [--at-once 4] [--output-dir D]

`$DATA` holds bccd, deeppcb, tiny_coco and raw/ (see docs/results.md). The generated fabric is made. Each row is
`tools/new_config.py`, then the command that it prints, pinned to two cores of its own, so that with `--at-once` N runs
share a machine of 2 N cores fairly. bccd is read from VOC files and deeppcb from text files, the originals; their
validation images are those of the configuration written by hand, so that the figures can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
CORES = 2  # per run


@dataclass(frozen=True)
class Case:
    """Where the data of a row is, and the figures of the configuration written by hand, from docs/results.md."""

    data: str
    images: tuple[str, ...] = ()
    by_hand: str = ""


CASES = {
    "bccd": Case("raw/bccd_voc", ("bccd",), "AP 0.581, AP50 0.880: 1400 steps, 9.5 min on A"),
    "deeppcb": Case("raw/deeppcb_txt", ("deeppcb",), "AP 0.576, AP50 0.862: 1200 steps, 16.7 min on A"),
    "tiny_coco": Case("tiny_coco", (), "none: 32 images of 80 classes"),
    "fabric": Case("", (), "AP 0.590, AP50 0.876: 340 steps, 3.3 min on X"),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DETECTION_DATA"), help="($DETECTION_DATA)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="some rows")
    parser.add_argument("--minutes", type=float, default=10, help="for training and test of a row (10)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="rows at the same time, two cores each (1)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/new_config"), metavar="D")
    args = parser.parse_args()
    if args.data is None and set(args.only) != {"fabric"}:
        parser.error("--data: the folder with bccd, deeppcb, tiny_coco and raw")
    return args


def run_on(cores: Sequence[int], command: Sequence[str | Path], log: Path) -> float:
    """Run `python command` on some cores; returns the seconds it took.

    Raises:
        RuntimeError: it failed; the message is the end of its output.
    """
    front = ["taskset", "-c", ",".join(map(str, cores))] if cores and shutil.which("taskset") else []
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = {"OMP_NUM_THREADS": str(CORES), "MKL_NUM_THREADS": str(CORES), "PYTHONPATH": path}
    began = time.perf_counter()
    done = subprocess.run(
        [*front, sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-600:]}")
    return time.perf_counter() - began


def run_case(name: str, args: argparse.Namespace, cores: Sequence[int]) -> tuple[str, ...]:
    """A row of the table."""
    case, folder = CASES[name], args.output_dir.absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    config, run = folder / f"{name}.yaml", folder / "run"
    data = folder / "fabric" if name == "fabric" else args.data.absolute() / case.data
    if name == "fabric":
        generate = ["datasets/generate_fabric.py", "--output", data, "--max-ratio", "12"]
        run_on(cores, generate, folder / "generate.txt")
    images = [word for each in case.images for word in ("--images", args.data.absolute() / each)]
    flags = ["--output", config, "--force", "--minutes", args.minutes, "--device", "cpu"]
    writing = run_on(cores, ["tools/new_config.py", data, *flags, *images], folder / "new_config.txt")
    shutil.rmtree(run, ignore_errors=True)
    training = run_on(
        cores, ["tools/train_net.py", "--config-file", config, "OUTPUT_DIR", run, "SEED", "0"], folder / "train.txt"
    )
    figures = json.loads((run / "inference" / f"{name}_val" / "metrics.json").read_text())["bbox"]
    lines = [line.strip() for line in config.read_text(encoding="utf-8").splitlines()]
    keys = ("MIN_SIZE_TEST", "IMS_PER_BATCH", "MAX_ITER")
    chosen = [line.split("#")[0].split(":")[1].strip() for key in keys for line in lines if line.startswith(f"{key}:")]
    times = f"{writing:.0f} s", f"{training / 60:.1f} min"
    return name, *chosen, *times, f"{figures['AP']:.3f}", f"{figures['AP50']:.3f}", case.by_hand


def main() -> int:
    args = parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pairs: Queue[list[int]] = Queue()
    for place in range(args.at_once):
        pairs.put(cores[CORES * place : CORES * (place + 1)])

    def row(name: str) -> tuple[str, ...]:
        own = pairs.get()
        try:
            return run_case(name, args, own)
        except RuntimeError as error:
            return name, *[""] * 5, "", "", f"failed: {error}"
        finally:
            pairs.put(own)

    with ThreadPoolExecutor(args.at_once) as pool:
        rows = list(pool.map(row, args.only))
    headers = ("data", "short side", "batch", "steps", "written in", "trained in", "AP", "AP50", "by hand")
    print(tabulate(rows, headers, disable_numparse=True))
    return int(any(each[-1].startswith("failed") for each in rows))


if __name__ == "__main__":
    sys.exit(main())
