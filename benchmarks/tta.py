"""Augmented testing with the published recipe (13 scales, mirrored, soft-vote) against one plain pass per augmentation.

    python benchmarks/tta.py [--full] [--images N] [--json FILE]

By default with a small R-18 model and all sizes divided by 5, which a CPU does in a minute; `--full` takes ATSS on R-50
and the sizes as published. Weights and images are random. `ratio` is our time over that of the plain passes; it cannot
get below `lower_bound`, the time of the network alone on the same pixels over that of the plain passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from engine.assembly.detector import build_augmented  # noqa: E402
from engine.assembly.model import build_model  # noqa: E402
from engine.config import get_cfg  # noqa: E402
from engine.data.transforms import Normalize, resize_pixels, resized_size  # noqa: E402
from engine.data.transforms import test_transform as plain_transform  # noqa: E402
from engine.inference.augment import AugmentedDetector, View  # noqa: E402
from engine.layers.nms import keep_best  # noqa: E402
from engine.modeling.detector import GeneralizedRCNN  # noqa: E402
from engine.structures import (  # noqa: E402
    INCLUSIVE,  # noqa: E402
    Detections,
    ImageBatch,
)
from engine.structures import boxes as box_ops  # noqa: E402

RECIPE = [
    *("TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.VOTE", True, "TEST.BBOX_AUG.MERGE_TYPE", "soft-vote"),
    *("TEST.BBOX_AUG.H_FLIP", True, "TEST.BBOX_AUG.SCALE_H_FLIP", True, "TEST.BBOX_AUG.MAX_SIZE", 3000),
    *("TEST.BBOX_AUG.SCALES", (400, 500, 600, 640, 700, 900, 1000, 1100, 1200, 1300, 1400, 1800)),
    "TEST.BBOX_AUG.SCALE_RANGES",
    (*((96, 10000),) * 2, *((64, 10000),) * 3, *((0, 10000),) * 2, *((0, 256),) * 2, *((0, 192),) * 2, (0, 96)),
]
MODEL = ["MODEL.ATSS_ON", True, "MODEL.RPN_ONLY", True, "MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu"]
SMALL = ["MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 64]
FULL = ["MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET"]
IMAGE_SIZE = (480, 640)
SHRINK = 5
SAME_PIXELS, SAME_SCORE = 0.1, 0.001


def build(is_full: bool) -> tuple[AugmentedDetector, tuple]:
    """The augmented detector, and what `Normalize` takes."""
    cfg = get_cfg()
    cfg.merge_from_list([*MODEL, *(FULL if is_full else SMALL), *RECIPE])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    spread_scores(model)
    detector = build_augmented(cfg, model)
    if not is_full:
        detector.views = tuple(shrunk(view) for view in detector.views)
    return detector, (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, cfg.INPUT.TO_BGR255)


def spread_scores(model: GeneralizedRCNN) -> None:
    """Make a model without training find something: a few hundred boxes an image, of different scores."""
    torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.08)
    torch.nn.init.constant_(model.rpn.head.cls_logits.bias, -5.0)
    torch.nn.init.normal_(model.rpn.head.bbox_pred.weight, std=0.03)


def shrunk(view: View) -> View:
    low, high = view.size_range or (0, 0)
    size_range = (low // SHRINK, max(high // SHRINK, 1)) if view.size_range else None
    return replace(view, min_size=view.min_size // SHRINK, max_size=view.max_size // SHRINK, size_range=size_range)


def random_images(count: int) -> list[Tensor]:
    """Smooth random colours: uint8 (3, H, W)."""
    coarse = torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 255
    return list(torch.nn.functional.interpolate(coarse, IMAGE_SIZE, mode="bicubic").clamp(0, 255).to(torch.uint8))


def plain_passes(detector: AugmentedDetector, images: Sequence[Tensor], normalization: tuple) -> list[Detections]:
    """One plain test of the batch for each scale and each mirrored scale, then the same merging."""
    model, device = detector.model, next(detector.model.parameters()).device
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    found: list[list[Detections]] = [[] for _ in images]
    for view in detector.views:
        transform = plain_transform(view.min_size, view.max_size, *normalization, convention=INCLUSIVE)
        for is_mirrored in [False, True][: 1 + view.mirrored]:
            scaled = [transform(array)[0] for array in arrays]
            scaled = [image.flip(-1) for image in scaled] if is_mirrored else scaled
            for passes, detections in zip(found, model(ImageBatch.from_list(scaled).to(device)), strict=True):
                if is_mirrored:
                    detections.boxes = box_ops.flip_horizontal(detections.boxes, detections.size[1])
                passes.append(view.in_size_range(detections).to("cpu"))
    merged = []
    for passes in found:
        frame = passes[0].size
        passes = [detections.resize(frame, INCLUSIVE) for detections in passes]
        joined = Detections.cat(passes)
        result = Detections(*detector.merge(joined.boxes, joined.scores, joined.labels), frame)
        result = result[keep_best(result.scores, detector.max_detections)]
        merged.append(result.resize(IMAGE_SIZE, INCLUSIVE))
    return merged


def network_alone(detector: AugmentedDetector, images: Sequence[Tensor], normalization: tuple) -> Callable[[], None]:
    """Backbone and head on every scaled and mirrored image, which are ready before the clock starts."""
    device, normalize = images[0].device, Normalize(*normalization).pixels
    batches = []
    for view in detector.views:
        size = resized_size(IMAGE_SIZE, view.min_size, view.max_size)
        scaled = torch.stack([normalize(resize_pixels(image, size)) for image in images])
        batches.append((torch.cat([scaled, scaled.flip(-1)]) if view.mirrored else scaled).to(device))

    def run() -> None:
        for batch in batches:
            detector.model.rpn.head(detector.model.backbone(batch))

    return run


def seconds_of(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The least time of each, in turns; the first round is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, spent in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - start)
    return [min(spent[1:]) for spent in times]


def share_found(these: list[Detections], those: list[Detections]) -> float:
    """Part of `these` that stand in `those`, too."""
    found = []
    for a, b in zip(these, those, strict=True):
        a, b = a.to("cpu"), b.to("cpu")
        near = (a.boxes[:, None] - b.boxes).abs().amax(-1) < SAME_PIXELS
        alike = (a.scores[:, None] - b.scores).abs() < SAME_SCORE
        found.append((near & alike & (a.labels[:, None] == b.labels)).any(1))
    return torch.cat(found).float().mean().item()


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the published sizes, R-50")
    parser.add_argument("--images", type=int, default=1, help="in a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    detector, normalization = build(args.full)
    images = random_images(args.images)
    on_device = [image.to(next(detector.parameters()).device) for image in images]

    ours, theirs = detector(on_device), plain_passes(detector, images, normalization)
    share = min(share_found(ours, theirs), share_found(theirs, ours))
    ours_seconds, plain_seconds, network_seconds = seconds_of(
        [
            lambda: detector([image.to(on_device[0].device) for image in images]),
            lambda: plain_passes(detector, images, normalization),
            network_alone(detector, on_device, normalization),
        ],
        args.repeats,
    )
    figures = {
        "recipe": "published" if args.full else f"sizes / {SHRINK}, R-18",
        "device": str(on_device[0].device),
        "images": args.images,
        "passes": sum(1 + view.mirrored for view in detector.views),
        "detections": sum(map(len, ours)),
        "share_equal": share,
        "plain_passes_s": plain_seconds,
        "ours_s": ours_seconds,
        "ratio": ours_seconds / plain_seconds,
        "lower_bound": network_seconds / plain_seconds,
    }
    print(
        "\n".join(
            f"{name:16}{value:.3f}" if isinstance(value, float) else f"{name:16}{value}"
            for name, value in figures.items()
        )
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0 if share >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
