"""Our VarifocalNet computes what mmdetection computes (see the README of the golden figures)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.modeling.dense.stage import HeadOutputs
from engine.modeling.dense.vfnet import FIRST_CODES, star_offsets
from engine.structures import ImageBatch
from tests.modeling.dense_cases import (
    CASES,
    SETTINGS,
    batch_of,
    check_gradients_of_head,
    freeze_biases_before_norms,
    recorded,
)
from tests.modeling.test_golden_mmdetection import Case, flat
from tests.modeling.two_stage import freeze_statistics


@pytest.fixture(scope="module")
def vfnet(golden_dir: Path) -> Case:
    folder = golden_dir / "mmdet"
    return Case(folder / "golden_vfnet.pt", "vfnet/vfnet_R_50_FPN_1x.yaml", SETTINGS, folder / "golden_atss.pt")


def strides_of_anchors(case: Case) -> Tensor:
    """(R, 1): pixels in one of our units of distance."""
    pairs = zip(case.anchors.num_per_level, case.anchors.strides, strict=True)
    return torch.cat([torch.full((count, 1), float(stride)) for count, stride in pairs])


@torch.no_grad()
def test_raw_outputs(vfnet: Case) -> None:
    data, strides = vfnet.data, strides_of_anchors(vfnet)
    for ours, theirs in zip(vfnet.features, data["fpn_outs"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    outputs = vfnet.model.rpn.head(vfnet.features)
    torch.testing.assert_close(outputs.logits, flat(data["cls_scores"], 5), rtol=0, atol=1e-3)
    first = outputs.extra[FIRST_CODES] * strides
    torch.testing.assert_close(first, flat(data["bbox_preds"], 4), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(outputs.codes * strides, flat(data["bbox_preds_refine"], 4), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(vfnet.anchors.boxes, torch.cat(data["anchors"]), rtol=0, atol=1e-4)


def test_stars(vfnet: Case) -> None:
    data = vfnet.data
    for stride, boxes, theirs in zip(
        vfnet.anchors.strides, data["bbox_preds"], data["internals"]["star_dcn_offset"], strict=True
    ):
        torch.testing.assert_close(star_offsets(boxes / stride), theirs, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_detections(vfnet: Case) -> None:
    data, model = vfnet.data, vfnet.model.eval()
    outputs = HeadOutputs(flat(data["cls_scores"], 5), flat(data["bbox_preds_refine"], 4) / strides_of_anchors(vfnet))
    (found,) = model.rpn.candidates(outputs, vfnet.anchors, [(256, 320)])
    vfnet.check_final(found, data["pre_nms"])
    vfnet.check_final(model(vfnet.batch)[0], data["final"])
    padded = data["padded_case"]
    batch = ImageBatch(padded["image"], [tuple(padded["img_shape"])])
    vfnet.check_final(model(batch)[0], padded["final"], scale=padded["scale_factor"][0])


@pytest.mark.parametrize("name", CASES)
def test_targets_losses_and_gradients(vfnet: Case, name: str) -> None:
    batch, targets = batch_of(vfnet, name)
    model, stage = freeze_statistics(vfnet.model), vfnet.model.rpn
    outputs, anchors = stage(model.backbone(batch.tensor), (256, 320))
    labels, _ = stage.assign_targets(outputs, anchors, targets)
    theirs = torch.cat([level.reshape(len(targets), -1) for level in vfnet.data[name]["labels"]], dim=1)
    assert torch.equal(torch.where(labels < 0, 5, labels), theirs)  # 5 is the background
    losses, theirs = stage.losses(outputs, anchors, targets), recorded(vfnet, name)["losses"]
    pairs = {"loss_cls": "loss_cls", "loss_reg_first": "loss_bbox", "loss_reg": "loss_bbox_rf"}
    assert losses.keys() == pairs.keys()
    for ours, its in pairs.items():
        torch.testing.assert_close(losses[ours], theirs[its], rtol=1e-4, atol=1e-6, msg=ours)
    check_gradients_of_head(vfnet, name, losses)


def test_gradients_and_steps(golden_dir: Path) -> None:
    folder = golden_dir / "mmdet"
    case = Case(folder / "golden_vfnet.pt", "vfnet/vfnet_R_50_FPN_1x.yaml", SETTINGS, folder / "golden_atss.pt")
    model = freeze_statistics(case.model)
    case.check_gradients(model)
    freeze_biases_before_norms(model)
    losses = torch.tensor(case.losses_of_sgd(model, seed=0))  # at a rate small enough not to amplify rounding
    torch.testing.assert_close(losses, torch.tensor(case.data["sgd"]["total_loss"]), rtol=1e-4, atol=0)
