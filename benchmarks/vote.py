"""Soft voting against the reference's algorithm written plainly in NumPy: equal results, and the ratio of their times.

    python benchmarks/vote.py [--boxes 1000 5000 20000] [--json FILE]

The boxes come from the folder DETECTION_GOLDEN where it is set, else they are drawn alike. All are of one class, which
is the slowest case: classes are voted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402

from engine.layers import voting  # noqa: E402

IOU_THRESH, SCORE_THRESH = 0.66, 0.05
REPEATS = 5
TARGET_RATIO, TARGET_BOXES = 20, 20000


def reference_soft_vote(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One class, after the published description: again and again the best box against all that are left.

    float32 throughout, as there.
    """
    order = scores.argsort()[::-1]
    boxes, scores = boxes[order], scores[order]
    out_boxes, out_scores = [], []
    while len(boxes):
        overlap = np.minimum(boxes[0, 2:], boxes[:, 2:]) - np.maximum(boxes[0, :2], boxes[:, :2])
        overlap = np.maximum(overlap, 0)
        inter = overlap[:, 0] * overlap[:, 1]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        ious = inter / (areas[0] + areas - inter)
        group = ious >= IOU_THRESH
        voters, weights, group_ious = boxes[group], scores[group], ious[group]
        boxes, scores = boxes[~group], scores[~group]
        out_boxes.append((voters * weights[:, None]).sum(axis=0, keepdims=True) / weights.sum())
        out_scores.append(weights.max(keepdims=True))
        if len(voters) > 1:
            lowered = weights * (1 - group_ious)
            stays = lowered >= SCORE_THRESH
            out_boxes.append(voters[stays])
            out_scores.append(lowered[stays])
    all_boxes, all_scores = np.concatenate(out_boxes), np.concatenate(out_scores)
    order = all_scores.argsort()[::-1]
    return all_boxes[order], all_scores[order]


def load_boxes(count: int) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Where they come from, boxes (P, 4), scores (P,)."""
    golden = os.environ.get("DETECTION_GOLDEN")
    path = Path(golden or "") / "atss" / f"vote_timing_{count}.pth"
    if golden and path.is_file():
        data = torch.load(path, weights_only=True)
        return "golden", data["boxes"] + torch.tensor([0.0, 0.0, 1.0, 1.0]), data["scores"]
    random = np.random.default_rng(count)
    objects = max(count // 20, 1)
    centers = random.uniform((0, 0), (1333, 800), (objects, 2))
    sides = random.uniform(20, 220, (objects, 2))
    of = random.integers(objects, size=count)
    centers = centers[of] + random.normal(0, 0.06, (count, 2)) * sides[of]
    half = sides[of] * np.exp(random.normal(0, 0.08, (count, 2))) / 2
    boxes = torch.from_numpy(np.concatenate([centers - half, centers + half], axis=1)).float()
    return "drawn", boxes, torch.linspace(0.05, 0.99, count)[torch.from_numpy(random.permutation(count))]


def seconds_of(function: Callable[[], object], repeats: int) -> float:
    """The least of several runs: what others do on the machine only ever adds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def are_equal(ours: tuple[torch.Tensor, ...], theirs: tuple[np.ndarray, np.ndarray]) -> bool:
    """The same boxes with the same scores, to float32's rounding, in any order among equal scores."""
    if len(ours[0]) != len(theirs[0]):
        return False
    a, b = [
        np.concatenate([boxes, scores[:, None]], axis=1)
        for boxes, scores in [(ours[0].numpy(), ours[1].numpy()), theirs]
    ]
    pairs = ((ours[0].numpy(), ours[1].numpy()), theirs)
    a, b = (np.concatenate([boxes, scores[:, None]], axis=1) for boxes, scores in pairs)
    a, b = (rows[np.lexsort(np.round(rows, 2).T)] for rows in (a, b))
    distances = np.abs(a - b).max(axis=1)
    return bool((distances < 5e-3).mean() > 0.999 and np.allclose(np.sort(a[:, 4]), np.sort(b[:, 4]), atol=1e-5))


def measure(count: int) -> dict[str, object]:
    source, boxes, scores = load_boxes(count)
    labels = torch.zeros(count, dtype=torch.int64)
    arrays = boxes.numpy(), scores.numpy()

    def ours() -> voting.Merged:
        return voting.soft_vote(boxes, scores, labels, IOU_THRESH, SCORE_THRESH)

    theirs_seconds = seconds_of(lambda: reference_soft_vote(*arrays), 2 if count > 5000 else 3)
    is_equal = are_equal(ours(), reference_soft_vote(*arrays))
    ours_seconds = seconds_of(ours, REPEATS)
    compiled, voting._find_leaders_compiled = voting._find_leaders_compiled, None
    fallback_seconds = seconds_of(ours, REPEATS)
    voting._find_leaders_compiled = compiled
    return {
        "boxes": count,
        "source": source,
        "compiled": compiled is not None,
        "ours_ms": 1e3 * ours_seconds,
        "fallback_ms": 1e3 * fallback_seconds,
        "reference_ms": 1e3 * theirs_seconds,
        "ratio": theirs_seconds / ours_seconds,
        "fallback_ratio": theirs_seconds / fallback_seconds,
        "equal": is_equal,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(count) for count in args.boxes]
    print("soft voting, one class, one thread; ratio: reference / ours")
    print(tabulate(rows, headers="keys", floatfmt=".1f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    is_fast = all(row["ratio"] >= TARGET_RATIO for row in rows if row["boxes"] >= TARGET_BOXES)
    return 0 if is_fast and all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
