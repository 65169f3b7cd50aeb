"""ATSS assignment: time and peak memory against the dense anchors x boxes formula, in one run.

    python benchmarks/assign.py [--boxes 10 100 1000 5000] [--dense-limit 1000] [--json FILE]

Each figure comes from a process of its own, so that the peak is that of one assignment. Ours should be flat in
anchors x boxes and at most linear in boxes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

IMAGE_SIDE = 2048
REPEATS = 5


def measure(kind: str, num_boxes: int) -> dict[str, float]:
    """Median seconds of one assignment and the megabytes it needs above the imported program, in this process."""
    import torch

    from engine.modeling.anchors import AnchorGenerator
    from engine.modeling.assign import assign_atss
    from engine.structures import INCLUSIVE
    from engine.structures import boxes as box_ops

    torch.set_num_threads(1)
    strides = [8, 16, 32, 64, 128]
    generator = AnchorGenerator([[8 * s] for s in strides], [1.0], strides, INCLUSIVE)
    anchors = generator([torch.zeros(1, 1, IMAGE_SIDE // s, IMAGE_SIDE // s) for s in strides])
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(num_boxes, 2, generator=random) * (IMAGE_SIDE - 300)
    sides = 8 + torch.rand(num_boxes, 2, generator=random) * 290
    boxes = torch.cat([corners, corners + sides], dim=1)

    def dense() -> torch.Tensor:
        ious = torch.stack([atss_iou(anchors.boxes, box) for box in boxes.split(1)], dim=1)
        distances = torch.cdist(box_ops.centers(anchors.boxes), box_ops.centers(boxes))
        candidates, start = [], 0
        for count in anchors.num_per_level:
            candidates.append(distances[start : start + count].topk(9, dim=0, largest=False).indices + start)
            start += count
        idx = torch.cat(candidates)
        chosen = ious.gather(0, idx)
        centers = box_ops.centers(anchors.boxes)[idx]
        inside = torch.cat([centers - boxes[:, :2], boxes[:, 2:] - centers], -1).amin(-1) - 0.5 > 0.01
        positive = (chosen >= chosen.mean(0) + chosen.std(0)) & inside
        claimed = torch.full_like(ious, -1.0).scatter_(0, idx, torch.where(positive, chosen, -1.0))
        best, gt_idx = claimed.max(dim=1)
        return torch.where(best >= 0, gt_idx, -1)

    def atss_iou(anchor_boxes: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        sides = torch.minimum(anchor_boxes[:, 2:], box[:, 2:]) - torch.maximum(anchor_boxes[:, :2], box[:, :2])
        overlap = sides.clamp(min=0).prod(-1)
        return overlap / (box_ops.area(anchor_boxes) + box_ops.area(box) - overlap)

    run = dense if kind == "dense" else lambda: assign_atss(anchors, boxes)
    assign_atss(anchors, boxes[:1])  # the first call loads code that is not to be counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(REPEATS if kind == "ours" else 1):
        start = time.perf_counter()
        matched = run()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": sorted(seconds)[len(seconds) // 2],
        "megabytes": peak / 1024,
        "positives": int((matched >= 0).sum()),
        "checksum": int(((matched + 2) * (torch.arange(len(matched)) % 1009)).sum()),
    }


def in_own_process(kind: str, num_boxes: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--worker", kind, str(num_boxes)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--dense-limit", type=int, default=1000, help="most boxes the dense formula is run with")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(args.worker[0], int(args.worker[1]))))
        return
    rows = []
    for num_boxes in args.boxes:
        ours = in_own_process("ours", num_boxes)
        dense = in_own_process("dense", num_boxes) if num_boxes <= args.dense_limit else None
        row = {"boxes": num_boxes, "ours_ms": 1e3 * ours["seconds"], "ours_mb": ours["megabytes"]}
        if dense:
            row |= {
                "dense_ms": 1e3 * dense["seconds"],
                "dense_mb": dense["megabytes"],
                "speedup": dense["seconds"] / ours["seconds"],
                "equal": dense["checksum"] == ours["checksum"],
            }
        rows.append(row)
    print(f"ATSS assignment in a {IMAGE_SIDE} x {IMAGE_SIDE} image, one thread")
    print(tabulate(rows, headers="keys", floatfmt=".1f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
