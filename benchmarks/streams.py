"""Images per second of `predict_iter` and of an `AsyncPredictor` beside a plain loop of calls, in one run.

    python benchmarks/streams.py --size 3000 4000

A detector with random weights looks at generated JPEGs, one at a time on one thread, and the three ways take turns.
What can be gained is the time of reading, which `reading` states as a share of the loop's: on a CPU a second idle core
does it meanwhile, on a GPU (`--device cuda`) any core. CPU time shows what the threads cost, also where other processes
keep all cores busy. The exit code is 1 if the three find different boxes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from engine.assembly.detector import build_detector
from engine.assembly.model import build_model
from engine.config import load_config
from engine.data.image_file import write_image
from engine.inference.async_predictor import AsyncPredictor
from engine.inference.predictor import ImagePredictor

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "quickstart" / "_base_atss_R_18_cpu.yaml"
CLASS_NAMES = ["a", "b", "c"]
_BLOCK = 16  # pixels of one colour, so that a JPEG is as large as that of a photograph


def random_predictor(config: Path, device: str) -> ImagePredictor:
    torch.manual_seed(0)
    cfg = load_config(config, ["MODEL.DEVICE", device, "MODEL.WEIGHT", ""])
    model = build_model(cfg, CLASS_NAMES).eval()
    return ImagePredictor(*build_detector(cfg, model), torch.device(device), CLASS_NAMES)


def write_images(folder: Path, number: int, size: Sequence[int]) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{k}.jpg" for k in range(number)]
    for path in paths:
        colours = rng.integers(0, 256, (-(-size[0] // _BLOCK), -(-size[1] // _BLOCK), 3), np.uint8)
        write_image(path, colours.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[: size[0], : size[1]])
    return paths


def by_calls_at_once(predict: ImagePredictor, paths: Sequence[Path]) -> list[Any]:
    async def main() -> list[Any]:
        async with AsyncPredictor(predict, max_batch=1, max_queue=len(paths)) as together:
            return await asyncio.gather(*map(together.detect, paths))

    return asyncio.run(main())


def measure(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What each way returns, and its median (wall seconds, CPU seconds); they take turns, the first one warms up."""
    found: dict[str, Any] = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = way()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return found, {name: [median(each) for each in zip(*rows[1:], strict=True)] for name, rows in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=CONFIG, help="the detector (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), help="height and width of the images")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    predict = random_predictor(args.config_file, args.device)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), args.images, args.size)
        ways = {
            "loop": lambda: [predict(path) for path in paths],
            "predict_iter": lambda: list(predict.predict_iter(paths, batch_size=1)),
            "AsyncPredictor": lambda: by_calls_at_once(predict, paths),
            "reading": lambda: [predict.prepare(path) is None for path in paths],
        }
        found, times = measure(ways, args.repeats)
    loop = times["loop"][0]
    rows = {
        name: {"ms": wall * 1e3 / args.images, "cpu_ms": cpu * 1e3 / args.images, "ratio": loop / wall}
        for name, (wall, cpu) in times.items()
    }
    print(
        tabulate(
            [[name, *row.values()] for name, row in rows.items()],
            ["", "ms per image", "CPU ms per image", "speed / loop's"],
            floatfmt=".2f",
        )
    )
    is_equal = all(
        torch.equal(ours.boxes, theirs.boxes)
        for name in ("predict_iter", "AsyncPredictor")
        for ours, theirs in zip(found[name], found["loop"], strict=True)
    )
    result = {"equal": is_equal, "reading": round(times["reading"][0] / loop, 3), "device": args.device, **rows}
    text = json.dumps({**result, "torch": torch.__version__})
    print(text)
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    sys.exit(not is_equal)


if __name__ == "__main__":
    main()
