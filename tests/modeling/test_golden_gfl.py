"""Our GFL computes what mmdetection computes (see the README of the golden figures)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.layers.quality_losses import distribution_focal_loss, quality_focal_loss_sum
from engine.modeling.box_coding import DistanceCoder, DistributionCoder
from engine.modeling.dense.stage import HeadOutputs
from engine.structures import CONTINUOUS, ImageBatch
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
def gfl(golden_dir: Path) -> Case:
    folder = golden_dir / "mmdet"
    return Case(folder / "golden_gfl.pt", "gfl/gfl_R_50_FPN_1x.yaml", SETTINGS, folder / "golden_atss.pt")


@torch.no_grad()
def test_raw_outputs_and_distances(gfl: Case) -> None:
    data, stage = gfl.data, gfl.model.rpn
    for ours, theirs in zip(gfl.features, data["fpn_outs"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    outputs = stage.head(gfl.features)
    torch.testing.assert_close(outputs.logits, flat(data["cls_scores"], 5), rtol=0, atol=1e-3)
    torch.testing.assert_close(outputs.codes, flat(data["bbox_preds"], 68), rtol=0, atol=1e-3)
    torch.testing.assert_close(stage.coder.means(outputs.codes[0]), torch.cat(data["integral"]), rtol=0, atol=1e-3)
    torch.testing.assert_close(gfl.anchors.boxes, torch.cat(data["anchors"]), rtol=0, atol=1e-4)


@torch.no_grad()
def test_candidates_of_recorded_outputs(gfl: Case) -> None:
    data = gfl.data
    outputs = HeadOutputs(flat(data["cls_scores"], 5), flat(data["bbox_preds"], 68))
    (found,) = gfl.model.rpn.candidates(outputs, gfl.anchors, [(256, 320)])
    gfl.check_final(found, data["pre_nms"])


@torch.no_grad()
def test_detections(gfl: Case) -> None:
    data, model = gfl.data, gfl.model.eval()
    gfl.check_final(model(gfl.batch)[0], data["final"])
    padded = data["padded_case"]
    batch = ImageBatch(padded["image"], [tuple(padded["img_shape"])])
    gfl.check_final(model(batch)[0], padded["final"], scale=padded["scale_factor"][0])
    gfl.check_final(model(batch)[0], padded["final_not_rescaled"])


@torch.no_grad()
def test_detections_of_another_selection(gfl: Case) -> None:
    stage = gfl.model.rpn
    before = stage.selection
    stage.selection = replace(before, score_thresh=0.02, pre_nms_top_n=25, nms_thresh=0.45, max_detections=40)
    found = gfl.model.eval()(gfl.batch)[0]
    stage.selection = before
    gfl.check_final(found, gfl.data["variant"]["final"])


@pytest.mark.parametrize("name", CASES)
def test_targets_losses_and_gradients(gfl: Case, name: str) -> None:
    batch, targets = batch_of(gfl, name)
    model, stage = freeze_statistics(gfl.model), gfl.model.rpn
    outputs, anchors = stage(model.backbone(batch.tensor), (256, 320))
    labels, boxes = stage.assign_targets(outputs, anchors, targets)
    for i, theirs in enumerate(gfl.data[name]["targets"]["per_image"]):
        assert torch.equal(torch.where(labels[i] < 0, 5, labels[i]), theirs["labels"])  # 5 is the background
        positive = labels[i] >= 0
        torch.testing.assert_close(boxes[i][positive], theirs["bbox_targets"][positive])
    losses, theirs = stage.losses(outputs, anchors, targets), recorded(gfl, name)["losses"]
    pairs = {"loss_cls": "loss_cls", "loss_reg": "loss_bbox", "loss_dfl": "loss_dfl"}
    assert losses.keys() == pairs.keys()
    for ours, its in pairs.items():
        torch.testing.assert_close(losses[ours], sum(theirs[its]), rtol=1e-4, atol=1e-6, msg=ours)
    check_gradients_of_head(gfl, name, losses)


def test_gradients_and_steps(golden_dir: Path) -> None:
    folder = golden_dir / "mmdet"
    case = Case(folder / "golden_gfl.pt", "gfl/gfl_R_50_FPN_1x.yaml", SETTINGS, folder / "golden_atss.pt")
    model = freeze_statistics(case.model)
    case.check_gradients(model)
    freeze_biases_before_norms(model)
    losses = torch.tensor(case.losses_of_sgd(model, seed=0))  # at a rate small enough not to amplify rounding
    torch.testing.assert_close(losses, torch.tensor(case.data["sgd"]["total_loss"]), rtol=1e-4, atol=0)


def grad_of(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_quality_focal_loss(gfl: Case) -> None:
    case = gfl.data["functions"]["qfl"]
    labels = torch.where(case["labels"] == 5, -1, case["labels"])
    logits = case["logits"].clone().requires_grad_()
    rows = [
        quality_focal_loss_sum(logits[i : i + 1], labels[i : i + 1], case["quality"][i : i + 1][labels[i : i + 1] >= 0])
        for i in range(len(labels))
    ]
    torch.testing.assert_close(torch.stack(rows), case["per_anchor"], rtol=1e-4, atol=1e-6)
    loss = (torch.stack(rows) * case["weight"]).sum() / case["avg_factor"]
    torch.testing.assert_close(loss, case["loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(grad_of(loss, logits), case["grad"], rtol=1e-4, atol=1e-6)


def test_distribution_focal_loss(gfl: Case) -> None:
    case = gfl.data["functions"]["dfl"]
    logits = case["logits"].clone().requires_grad_()
    losses = distribution_focal_loss(logits, case["target"])
    torch.testing.assert_close(losses, case["per_side"], rtol=1e-4, atol=1e-6)
    loss = case["loss_weight"] * (losses * case["weight"]).sum() / case["avg_factor"]
    torch.testing.assert_close(loss, case["loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(grad_of(loss, logits), case["grad"], rtol=1e-4, atol=1e-6)


def test_distances(gfl: Case) -> None:
    case = gfl.data["functions"]
    coder = DistributionCoder(16)
    torch.testing.assert_close(coder.means(case["integral"]["x"]), case["integral"]["out"], rtol=1e-4, atol=1e-5)
    case = case["distance"]
    anchors = torch.cat([case["points"] - 0.5, case["points"] + 0.5], dim=1)  # one pixel is the unit
    encoded = DistanceCoder().encode(case["boxes"], anchors)
    torch.testing.assert_close(encoded, case["encoded_unlimited"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoded.clamp(0, 15.9), case["encoded_max16"], rtol=1e-4, atol=1e-4)
    decoded = DistanceCoder().decode(case["encoded_max16"], anchors)
    torch.testing.assert_close(decoded, case["decoded"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(CONTINUOUS.clip(decoded, (20, 25)), case["decoded_clipped_hw_20_25"])
