"""What lies in an ignore region costs nothing: in no head, by no sampler, at no stage.

A box lies in a region if at least half of its area does, unless it learns an object.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from engine.assembly.model import build_model
from engine.modeling.dense.stage import DenseStage, HeadOutputs
from engine.modeling.two_stage.box_head import RegionTargets
from engine.modeling.two_stage.roi_heads import StandardRoIHeads
from engine.modeling.two_stage.rpn import RPN
from engine.structures import Detections, Targets
from engine.structures import boxes as box_ops
from tests.modeling.two_stage import small_config

SIZE = (128, 160)
STRIDES = {"dense": (8, 16, 32, 64, 128), "rpn": (4, 8, 16, 32, 64)}
ATSS, RETINANET, FCOS = (f"{name}/{name}_R_50_FPN_1x.yaml" for name in ("atss", "retinanet", "fcos"))
GFL, VFNET = (f"{name}/{name}_R_50_FPN_1x.yaml" for name in ("gfl", "vfnet"))
FASTER, CASCADE = (f"{name}/{name}_R_50_FPN_1x.yaml" for name in ("faster", "cascade"))
DENSE: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"ATSS by {rule}": (ATSS, {"MODEL.ATSS.POSITIVE_TYPE": rule}) for rule in ("ATSS", "TOPK", "IoU", "SSC")},
    "ATSS on points": (ATSS, {"MODEL.ATSS.REGRESSION_TYPE": "POINT"}),
    "FCOS": (FCOS, {"MODEL.FCOS.NUM_CLASSES": 4}),
    "GFL": (GFL, {}),
    "VFNet": (VFNET, {}),
    "ATSS with soft labels": (ATSS, {"MODEL.ATSS.CLS_LOSS": "quality_focal"}),
    "RetinaNet with soft labels": (
        RETINANET,
        {"MODEL.RETINANET.CLS_LOSS": "varifocal", "MODEL.RETINANET.NUM_CLASSES": 4},
    ),
    "TOOD, first phase": ("tood/tood_R_50_FPN_1x.yaml", {"MODEL.DENSE.NUM_CLASSES": 4}),
    **{
        f"RetinaNet, {name}": (RETINANET, {"MODEL.RETINANET.LOSS_NORMALIZER": name, "MODEL.RETINANET.NUM_CLASSES": 4})
        for name in ("positives", "moving_average", "per_image")
    },
}
SAMPLERS = ("random", "ohem", "balanced")
TWO_STAGE: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"Faster, {name}": (FASTER, {"MODEL.ROI_HEADS.SAMPLER": name}) for name in SAMPLERS},
    **{f"Cascade, {name}": (CASCADE, {"MODEL.ROI_HEADS.SAMPLER": name}) for name in SAMPLERS},
    "Cascade, sampled once": (CASCADE, {"MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE": False}),
    "Faster, without gt boxes": (FASTER, {"MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False}),
    "Faster, focal": (FASTER, {"MODEL.ROI_BOX_HEAD.CLS_LOSS": "focal"}),
}
REGIONS = [[60.0, 40.0, 160.0, 128.0], [0.0, 90.0, 40.0, 128.0]]
OBJECTS = [[8.0, 8.0, 40.0, 44.0], [100.0, 60.0, 130.0, 96.0]]  # the second one lies in a region


def model_of(config: str, settings: dict[str, Any]) -> torch.nn.Module:
    cfg = small_config(config, 3, **settings)
    cfg.freeze()
    torch.manual_seed(0)
    return build_model(cfg)


def targets(regions: list[list[float]] = REGIONS, image_id: int = 0) -> Targets:
    boxes = torch.tensor([*OBJECTS, *regions])
    ignore = torch.arange(len(boxes)) >= len(OBJECTS)
    return Targets(boxes, torch.tensor([0, 2, *[1] * len(regions)]), ignore, image_id, SIZE)


def lies_in_a_region(boxes: Tensor) -> Tensor:
    """(R,) bool, by the definition above and not by the engine's code."""
    inside = torch.zeros(len(boxes), dtype=torch.bool)
    for region in torch.tensor(REGIONS):
        sides = torch.minimum(boxes[:, 2:], region[2:]) - torch.maximum(boxes[:, :2], region[:2])
        inside |= sides.clamp(min=0).prod(1) >= 0.5 * box_ops.area(boxes)
    return inside


def pyramid(strides: tuple[int, ...], channels: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in strides]
    return [torch.randn(2, channels, *size, generator=generator) for size in sizes]


def random_outputs(stage: DenseStage) -> HeadOutputs:
    """Leaves of the graph for two images, in the head's shapes."""
    with torch.no_grad():
        shapes, _ = stage(pyramid(STRIDES["dense"]), SIZE)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shapes.logits.shape, generator=generator).requires_grad_()
    codes = (torch.rand(shapes.codes.shape, generator=generator) * 0.5 + 0.1).requires_grad_()
    extra = {name: (codes * 1.5).detach().requires_grad_() for name in shapes.extra}
    if shapes.centerness is None:
        return HeadOutputs(logits, codes, extra=extra)
    return HeadOutputs(logits, codes, torch.randn(shapes.centerness.shape, generator=generator).requires_grad_())


@pytest.mark.parametrize("name", DENSE)
def test_a_dense_head_learns_nothing_in_a_region(name: str) -> None:
    stage = model_of(*DENSE[name]).train().rpn
    outputs = random_outputs(stage)
    anchors = stage.anchor_generator(pyramid(STRIDES["dense"]), SIZE)
    both = [targets(), targets(image_id=1)]
    labels, _ = stage.assign_targets(outputs, anchors, both)
    silent = lies_in_a_region(anchors.boxes) & (labels < 0)  # (2, R)
    assert silent.sum() > 100 and (labels[:, lies_in_a_region(anchors.boxes)] >= 0).any()
    average = {key: value.clone() for key, value in stage.state_dict().items()}
    losses = stage.losses(outputs, anchors, both)
    sum(losses.values()).backward()
    centerness = [] if outputs.centerness is None else [outputs.centerness]
    leaves = [outputs.logits, outputs.codes, *centerness, *outputs.extra.values()]
    for leaf in leaves:
        assert (leaf.grad[silent] == 0).all() and leaf.grad.abs().sum() > 0
    # Everywhere else the background is learned.
    assert (outputs.logits.grad[~silent & (labels == -1)] != 0).all()

    stage.load_state_dict(average)  # the moving average
    changed = []
    for leaf in leaves:
        noise = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(2)) * 5
        shape = (*silent.shape, *[1] * (leaf.dim() - 2))
        changed.append(torch.where(silent.view(shape), noise, leaf.detach()))
    num_plain = 2 + len(centerness)
    extra = dict(zip(outputs.extra, changed[num_plain:], strict=True))
    again = stage.losses(HeadOutputs(*changed[:num_plain], extra=extra), anchors, both)
    assert {key: value.item() for key, value in again.items()} == {key: value.item() for key, value in losses.items()}
    stage.load_state_dict(average)
    without = stage.losses(outputs, anchors, [targets([]), targets([], image_id=1)])
    assert without["loss_cls"] > losses["loss_cls"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_region_proposals_learn_nothing_in_a_region(sampler: str) -> None:
    stage = model_of(FASTER, {"MODEL.RPN.SAMPLER": sampler}).rpn
    assert isinstance(stage, RPN)
    anchors = stage.anchor_generator(pyramid(STRIDES["rpn"]), SIZE)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, len(anchors.boxes), generator=generator)
    deltas = 0.2 * torch.randn(2, len(anchors.boxes), 4, generator=generator)
    matched, _ = stage.assign_in_image(anchors, targets())
    silent = lies_in_a_region(anchors.boxes) & (matched < 0)
    noise = torch.where(silent, torch.randn(len(silent), generator=generator) * 50, 0)
    figures = []
    for seed in range(10):
        found = []
        for each in (logits, logits + noise):  # the hardest examples of all would lie in the region
            leaf = each.clone().requires_grad_()
            torch.manual_seed(seed)
            losses = stage.losses((leaf, deltas), anchors, [targets(), targets(image_id=1)])
            sum(losses.values()).backward()
            assert (leaf.grad[:, silent] == 0).all() and leaf.grad.abs().sum() > 0
            found.append({key: value.item() for key, value in losses.items()})
        assert found[0] == found[1]
        figures.append(found[0]["loss_objectness"])
    assert len(set(figures)) > 1 or sampler == "ohem"


def record_regions(heads: StandardRoIHeads) -> list[RegionTargets]:
    """A list that gets the regions of each stage when it computes its losses."""
    recorded: list[RegionTargets] = []
    boxes = heads.box if isinstance(heads.box, torch.nn.ModuleList) else [heads.box]
    for head in boxes:
        losses = head.losses

        def recording(logits: Tensor, deltas: Tensor, regions: RegionTargets, losses: Any = losses) -> Any:
            recorded.append(regions)
            return losses(logits, deltas, regions)

        head.losses = recording
    return recorded


def proposals(seed: int, in_regions: bool) -> Detections:
    """Random boxes outside the regions and, if wanted, as many in them that do not learn the object there."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(3000, 2, generator=generator) * torch.tensor([150.0, 118.0])
    sides = 6 + torch.rand(3000, 2, generator=generator) * 40
    ends = torch.minimum(corners + sides, torch.tensor([160.0, 128.0]))
    boxes = torch.cat([corners, ends], dim=1)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 4).all(1)]
    inside = lies_in_a_region(boxes)
    silent = boxes[inside & (box_iou(boxes, torch.tensor(OBJECTS)).amax(1) < 0.5)]
    kept = torch.cat([boxes[~inside][:300], silent[: 300 if in_regions else 0]])
    near = torch.tensor(OBJECTS) + 1.5  # some that learn the objects
    kept = torch.cat([near, kept])
    return Detections(kept, torch.ones(len(kept)), torch.zeros(len(kept), dtype=torch.int64), SIZE)


@pytest.mark.parametrize("name", TWO_STAGE)
def test_a_second_stage_takes_no_background_from_a_region(name: str) -> None:
    config, settings = TWO_STAGE[name]
    heads = model_of(config, {"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64, **settings}).train().roi_heads
    recorded = record_regions(heads)
    features = pyramid(STRIDES["rpn"])
    for seed in range(3):
        recorded.clear()
        figures = []
        for in_regions in (False, True):
            given = [proposals(seed, in_regions), proposals(seed + 100, in_regions)]
            torch.manual_seed(seed)
            losses = heads.losses(features, given, [targets(), targets(image_id=1)])
            figures.append({key: value.item() for key, value in losses.items()})
        for regions in recorded:
            boxes = torch.cat(regions.boxes)
            is_background = regions.labels == heads.num_classes
            assert is_background.any() and not (is_background & lies_in_a_region(boxes)).any()
            learned = regions.labels[lies_in_a_region(boxes)]
            assert (learned == 2).all()  # of the object in the region
        if "gt boxes" not in name:
            assert any((regions.labels == 2).any() for regions in recorded)
        # Proposals in a region change nothing, not even what is drawn: the losses have the same bits.
        assert figures[0] == figures[1]
