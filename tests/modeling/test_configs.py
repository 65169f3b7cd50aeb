"""Every configuration file of the repository, made narrow, builds, trains two steps and detects in an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from yacs.config import CfgNode

from engine.assembly.model import build_model
from engine.assembly.solver import build_optimizer
from engine.config import load_config
from engine.structures import ImageBatch, Targets

CONFIGS = sorted(path for path in Path("configs").rglob("*.yaml") if not path.name.startswith("_"))
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
CLASS_GROUPS = ("ATSS", "RETINANET", "FCOS", "ROI_BOX_HEAD")


def narrow(path: Path, changed: Mapping[str, str] = MappingProxyType({})) -> CfgNode:
    """The configuration with few channels and `changed`; a ResNeXt keeps two groups, group norm its 32 channels."""
    cfg = load_config(path)
    is_gn = "GN" in cfg.MODEL.RESNETS.NORM + cfg.MODEL.RESNETS.TRANS_FUNC
    widths = {"STEM_OUT_CHANNELS": "32", "RES2_OUT_CHANNELS": "32", "WIDTH_PER_GROUP": "32"} if is_gn else {}
    overrides = NARROW | {f"MODEL.RESNETS.{name}": value for name, value in widths.items()}
    if cfg.MODEL.RESNETS.NUM_GROUPS > 1:
        overrides["MODEL.RESNETS.NUM_GROUPS"] = "2"
    overrides |= {f"MODEL.{group}.NUM_CLASSES": "4" for group in CLASS_GROUPS}
    return load_config(path, [item for pair in (overrides | dict(changed)).items() for item in pair])


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


def test_there_are_some() -> None:
    assert {path.parent.name for path in CONFIGS} >= {"atss", "retinanet", "fcos"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_trains_and_detects(path: Path) -> None:
    torch.manual_seed(0)
    cfg = narrow(path)
    model = build_model(cfg, ["a", "b", "c"]).train()
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    batch, targets = batch_of_two()
    for _ in range(2):
        losses = model(batch, targets)
        total = sum(losses.values())
        assert total.isfinite(), losses
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = model.eval()([batch.tensor[0]])
    assert found.boxes.isfinite().all()
    assert found.size == (96, 128)
