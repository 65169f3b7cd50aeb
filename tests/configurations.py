"""The configuration files of the repository, made narrow, and a few of them that name all parts."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from yacs.config import CfgNode

from engine.config import load_config
from engine.config.parts import body_name, dense_name, neck_name
from engine.structures import ImageBatch, Targets

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted(path for path in FOLDER.rglob("*.yaml") if not path.name.startswith("_"))
NARROW = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "16",
    "MODEL.RESNETS.WIDTH_PER_GROUP": "16",
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": "32",
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": "16",
    "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM": "32",
    "DATALOADER.SIZE_DIVISIBILITY": "32",
}
CLASS_GROUPS = ("ATSS", "RETINANET", "FCOS", "DENSE", "ROI_BOX_HEAD")


def narrow(path: Path, changed: Mapping[str, str] = MappingProxyType({})) -> CfgNode:
    """The configuration for 3 classes with few channels and `changed`.

    A ResNeXt keeps two groups, group norm its 32 channels.
    """
    cfg = load_config(path)
    is_gn = "GN" in cfg.MODEL.RESNETS.NORM + cfg.MODEL.RESNETS.TRANS_FUNC
    widths = {"STEM_OUT_CHANNELS": "32", "RES2_OUT_CHANNELS": "32", "WIDTH_PER_GROUP": "32"} if is_gn else {}
    overrides = NARROW | {f"MODEL.RESNETS.{name}": value for name, value in widths.items()}
    if cfg.MODEL.RESNETS.NUM_GROUPS > 1:
        overrides["MODEL.RESNETS.NUM_GROUPS"] = "2"
    overrides |= {f"MODEL.{group}.NUM_CLASSES": "4" for group in CLASS_GROUPS}
    return load_config(path, [item for pair in (overrides | dict(changed)).items() for item in pair])


def parts_of(path: Path) -> frozenset[tuple[str, Any]]:
    """What a configuration is put together from, without sizes: ResNets of any depth from 50 on are one body."""
    cfg = _as_written(path)
    body, model, solver = body_name(cfg), cfg.MODEL, cfg.SOLVER
    parts: dict[str, Any] = {
        "body": re.sub(r"^R-(50|101|152)$", "R-50", body),
        "is a ResNeXt": model.RESNETS.NUM_GROUPS > 1,
        "deformable": any(model.RESNETS.STAGE_WITH_DCN) and 1 + model.RESNETS.WITH_MODULATED_DCN,
        "norm": model.RESNETS.NORM,
        "neck": (neck_name(cfg), sorted(model.NECK.ARGS), model.FPN.USE_GN),
        "dense": (dense_name(cfg), sorted(model.DENSE.ARGS), model.DENSE.TOWER_CONV, model.DENSE.TOWER_NORM),
        "solver": (solver.OPTIMIZER, solver.SCHEDULE, solver.EMA_DECAY > 0, solver.AMP.ENABLED, solver.ACCUMULATE > 1),
        "steps": [step["name"] for step in cfg.INPUT.AUGMENTATIONS],
    }
    if dense_name(cfg) == "ATSS":
        parts["tower"] = model.ATSS.USE_DCN_IN_TOWER
        parts["losses"] = (model.ATSS.CLS_LOSS, model.ATSS.BBOX_LOSS, model.ATSS.POSITIVE_TYPE)
    if not model.RPN_ONLY:
        head = model.ROI_BOX_HEAD
        parts["second"] = (
            model.ROI_HEADS.NAME,
            model.ROI_HEADS.SAMPLER,
            head.FEATURE_EXTRACTOR,
            head.USE_GN,
            head.NORM,
        )
        parts["losses"] = (head.CLS_LOSS, head.BBOX_LOSS, model.RPN.BBOX_LOSS)
    return frozenset((name, str(value)) for name, value in parts.items())


def few_with_all_parts() -> set[Path]:
    """Files, shallow ones first, that name together every part that any file names."""
    parts = {path: parts_of(path) for path in CONFIGS}
    lacking, chosen = set().union(*parts.values()), set()
    while lacking:
        best = min(parts, key=lambda path: (-len(parts[path] & lacking), _depth(path), path))
        chosen.add(best)
        lacking -= parts[best]
    return chosen


def _depth(path: Path) -> int:
    found = re.fullmatch(r"R-(\d+)", body_name(_as_written(path)))
    return int(found[1]) if found else 0


@functools.cache
def _as_written(path: Path) -> CfgNode:
    return load_config(path)


def batch_of_two() -> tuple[ImageBatch, list[Targets]]:
    """An image with two boxes and a crowd, and one without boxes."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(96, 128), (80, 112)]
    batch = ImageBatch.from_list([torch.randn(3, *size, generator=generator) for size in sizes], 32)
    boxes = torch.tensor([[8.0, 10, 60, 70], [40, 20, 120, 52], [90, 60, 126, 94]])
    ignore = torch.tensor([False, False, True])
    nothing = Targets(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool), 1, sizes[1]
    )
    return batch, [Targets(boxes, torch.tensor([0, 2, 1]), ignore, 0, sizes[0]), nothing]
