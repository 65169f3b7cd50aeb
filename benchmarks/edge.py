"""Time per image and size of a light detector beside those of ATSS R-18, in one run.

    python benchmarks/edge.py --size 320

Both detectors have random weights (they cost the same), batch norms merged into the convolutions, float32 and one
thread, and take turns, so that whatever else the machine does hits both. A time is the CPU time of a whole call, from a
normalised image to detections; the ratio is that of the medians. The size is that of the weights in float32 before the
merge, as a checkpoint of weights alone holds them. The exit code is 1 if a target is missed: half of the time, 20 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor, nn

from engine.assembly.model import build_model
from engine.config import load_config
from engine.layers.folding import fold_norms

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
REFERENCE = CONFIGS / "quickstart" / "_base_atss_R_18_cpu.yaml"
EDGE = CONFIGS / "recipes" / "edge.yaml"
NUM_CLASSES = 3
LARGEST_RATIO, LARGEST_MEGABYTES = 0.5, 20.0


def detector(path: Path) -> nn.Module:
    """The detector of a configuration with random weights, ready for inference but for the merge of norms."""
    torch.manual_seed(0)
    cfg = load_config(path, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", ""])
    return build_model(cfg, [f"class {i}" for i in range(NUM_CLASSES)]).eval()


def megabytes(model: nn.Module) -> float:
    """Of all parameters and buffers in float32."""
    return sum(tensor.numel() for tensor in model.state_dict().values()) * 4 / 1e6


@torch.inference_mode()
def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(reference: nn.Module, light: nn.Module, image: Tensor, repeats: int) -> tuple[float, float]:
    """Median CPU seconds per image (3, H, W) of both; they take turns, and the first turn warms up."""
    turns = [[seconds(lambda model=model: model([image])) for model in (reference, light)] for _ in range(repeats + 1)]
    first, second = zip(*turns[1:], strict=True)
    return median(first), median(second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=EDGE, help="the light detector (%(default)s)")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="what it is compared with (%(default)s)")
    parser.add_argument("--size", type=int, default=320, help="height and width of the image")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = [detector(path) for path in (args.reference, args.config_file)]
    image = torch.randn(3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    times = compare(*map(fold_norms, models), image, args.repeats)
    sizes = [megabytes(model) for model in models]
    names = [path.stem for path in (args.reference, args.config_file)]
    rows = [[name, each * 1e3, size] for name, each, size in zip(names, times, sizes, strict=True)]
    print(tabulate(rows, ["configuration", "ms per image", "MB"], floatfmt=".1f"))
    result = {"size": args.size, "ratio": round(times[1] / times[0], 3), "MB": round(sizes[1], 2)}
    by_name = {name: round(each * 1e3, 2) for name, each in zip(names, times, strict=True)}
    text = json.dumps({**result, "ms_per_image": by_name, "torch": torch.__version__})
    print(text)
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    sys.exit(result["ratio"] > LARGEST_RATIO or result["MB"] > LARGEST_MEGABYTES)


if __name__ == "__main__":
    main()
