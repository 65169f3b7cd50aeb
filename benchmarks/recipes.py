"""What a change of the configuration does to AP: each variant is trained with several seeds, for the same iterations.

    python benchmarks/recipes.py --config-file configs/bccd/atss_R_18_bccd.yaml --seeds 3 --iterations 400 \
        --variant "flips off: INPUT.HORIZONTAL_FLIP_PROB_TRAIN 0 INPUT.VERTICAL_FLIP_PROB_TRAIN 0" \
        --variant "mosaic: INPUT.AUGMENTATIONS '[{name: Mosaic, prob: 0.5}]'" \
        [--at-once N] [--output-dir D] [--json FILE] [KEY VALUE ...]

Every run is `tools/train_net.py` of its own, test included; the first row is the configuration as it is. `AP50 +-` is
the standard deviation over the seeds; a difference smaller than that of both rows is no difference. KEY VALUE pairs at
the end hold for all rows; {seed} in a value is the seed of the run. `@FILE` stands for the arguments in FILE, one per
line (benchmarks/tables/). With `--at-once`, several runs share the machine, so their seconds mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "as it is"


@dataclass(frozen=True)
class Variant:
    """A row of the table: its name, and the KEY VALUE pairs that make it."""

    name: str
    pairs: tuple[str, ...] = ()


def parse_variant(text: str) -> Variant:
    """ "name: KEY VALUE ..."; quotes hold a value together.

    Raises:
        argparse.ArgumentTypeError: it has no name, or a key without a value.
    """
    name, colon, rest = text.partition(":")
    pairs = tuple(shlex.split(rest))
    if not colon or not name.strip() or not pairs or len(pairs) % 2:
        raise argparse.ArgumentTypeError(f'must be "name: KEY VALUE ...", got {text!r}')
    return Variant(name.strip(), pairs)


def train(args: argparse.Namespace, variant: Variant, seed: int) -> dict[str, float] | None:
    """The figures of one run, {"AP", "AP50", "seconds per iteration"}; None if it failed, which is said on stderr."""
    folder = args.output_dir / f"{variant.name.replace('/', '_')}-{seed}"
    if not (folder / "last_checkpoint").exists() or not list((folder / "inference").glob("*/metrics.json")):
        iterations = [] if args.iterations is None else ["SOLVER.MAX_ITER", str(args.iterations)]
        # The baseline's pairs come first, so that a variant may change what holds for all.
        pairs = [*args.pairs, *iterations, *variant.pairs, "SEED", str(seed), "OUTPUT_DIR", str(folder)]
        pairs = [value.replace("{seed}", str(seed)) for value in pairs]
        command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file", args.config_file, *pairs]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        if done.returncode:
            print(f"{variant.name}, seed {seed}: exit code {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
            return None
    metrics = json.loads(next((folder / "inference").glob("*/metrics.json")).read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = median(line["time"] for line in lines if "time" in line)
    return {"AP": metrics["bbox"]["AP"], "AP50": metrics["bbox"]["AP50"], "seconds per iteration": seconds}


def row_of(variant: Variant, runs: Sequence[dict[str, float] | None]) -> dict[str, Any]:
    done = [run for run in runs if run is not None]
    row: dict[str, Any] = {"variant": variant.name, "runs": len(done)}
    for figure in ("AP", "AP50"):
        values = [run[figure] for run in done]
        row[figure] = mean(values) if values else None
        row[f"{figure} +-"] = stdev(values) if len(values) > 1 else None
    row["seconds per iteration"] = median(run["seconds per iteration"] for run in done) if done else None
    return row


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], fromfile_prefix_chars="@")
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--variant", action="append", type=parse_variant, default=[], help='"name: KEY VALUE ..."')
    parser.add_argument("--no-baseline", action="store_true", help="without the row of the configuration as it is")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--iterations", type=int, help="SOLVER.MAX_ITER of all rows")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs/recipes"), help="what is there is not repeated"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="hold for all rows")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    variants = [*([] if args.no_baseline else [Variant(BASELINE)]), *args.variant]
    # Seed by seed, so that a table of what is there after an interruption compares like with like.
    jobs = [(variant, seed) for seed in range(args.seeds) for variant in variants]
    with ThreadPoolExecutor(args.at_once) as pool:
        figures = list(pool.map(lambda job: train(args, *job), jobs))
    rows = [row_of(each, [f for (v, _), f in zip(jobs, figures, strict=True) if v is each]) for each in variants]
    print(tabulate(rows, headers="keys", floatfmt=".4f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(run is None for run in figures))


if __name__ == "__main__":
    sys.exit(main())
