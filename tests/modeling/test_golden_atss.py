"""Our ATSS computes what the published code computes (see the README of the golden figures)."""

from __future__ import annotations

import pytest
import torch

from engine.assembly.dense import build_assigner
from engine.modeling.selection import Selection
from engine.structures import Detections
from tests.modeling.conftest import LAST_PIXEL, GoldenCase, flatten_levels


def test_batch_is_padded_alike(golden: GoldenCase) -> None:
    assert torch.equal(golden.batch.tensor, golden.data["batch"])


def test_features_and_head_outputs(golden: GoldenCase) -> None:
    model = golden.model.eval()
    with torch.no_grad():
        body = model.backbone.body(golden.batch.tensor)
        features = model.backbone(golden.batch.tensor)
        outputs = model.rpn.head(features)
    expected = golden.head_outputs()
    for ours, theirs in zip(body, golden.data.get("body_features", body), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)
    for ours, theirs in zip(features, golden.data["fpn_features"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)
    for name in ("logits", "codes", "centerness"):
        torch.testing.assert_close(getattr(outputs, name), getattr(expected, name), rtol=0, atol=2e-4)


def test_anchors(golden: GoldenCase) -> None:
    for ours, theirs in zip(golden.anchors.boxes_per_level, golden.data["anchors_per_level"], strict=True):
        torch.testing.assert_close(ours, theirs + LAST_PIXEL, rtol=0, atol=1e-4)


def rows(labels: torch.Tensor, scores: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(D, 6) sorted by label, then score: detections as a set."""
    table = torch.cat([labels[:, None].double(), scores[:, None].double(), boxes.double()], dim=1)
    return table[torch.argsort(table[:, 0] * 10 + table[:, 1])]


def assert_same_detections(ours: Detections, theirs: dict) -> None:
    assert len(ours) == len(theirs["boxes"])
    torch.testing.assert_close(
        rows(ours.labels, ours.scores, ours.boxes),
        rows(theirs["labels"] - 1, theirs["scores"], theirs["boxes"] + LAST_PIXEL),
        rtol=1e-4,
        atol=1e-4,
    )


def test_post_processing_variants(golden: GoldenCase) -> None:
    rpn = golden.model.eval().rpn
    before = rpn.selection
    assert golden.data["postprocess_variants"]
    for variant in golden.data["postprocess_variants"]:
        rpn.selection = Selection(
            variant["INFERENCE_TH"], variant["PRE_NMS_TOP_N"], variant["NMS_TH"], variant["DETECTIONS_PER_IMG"]
        )
        found = rpn.candidates(golden.head_outputs(), golden.anchors, golden.batch.sizes)
        for ours, theirs in zip(map(rpn.selection, found), variant["result"], strict=True):
            assert_same_detections(ours, theirs)
    rpn.selection = before


@pytest.mark.parametrize("rule", ["ATSS", "SSC", "IoU", "TOPK"])
def test_targets_losses_and_gradients(golden: GoldenCase, rule: str) -> None:
    cfg = golden.cfg.clone()
    cfg.defrost()
    cfg.MODEL.ATSS.POSITIVE_TYPE = rule
    rpn = golden.model.train().rpn
    rpn.assign = build_assigner(cfg)
    expected = golden.data["targets"][rule]

    all_ours, _ = rpn.assign_targets(golden.head_outputs(), golden.anchors, golden.targets())
    for ours, labels in zip(all_ours, expected["cls_labels"], strict=True):
        theirs = labels.long()  # 0 background, -1 ignored, else class + 1
        assert torch.equal(torch.where(ours == -2, -1, ours + 1), theirs)

    outputs = golden.head_outputs(requires_grad=True)
    losses = rpn.losses(outputs, golden.anchors, golden.targets())
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=0)
    sum(losses.values()).backward()
    gradients = {
        "logits": flatten_levels(expected["grad_cls"], rpn.head.num_classes),
        "codes": flatten_levels(expected["grad_reg"], 4),
        "centerness": flatten_levels(expected["grad_ctr"], 1)[..., 0],
    }
    for name, gradient in gradients.items():
        torch.testing.assert_close(getattr(outputs, name).grad, gradient, rtol=1e-4, atol=1e-6)


def test_parameter_gradients(golden: GoldenCase) -> None:
    if "param_grads" not in golden.data:
        pytest.skip("recorded for small_box only")
    model = golden.model.train()
    model.rpn.assign = build_assigner(golden.cfg)
    model.zero_grad()
    sum(model(golden.batch, golden.targets()).values()).backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = golden.data["param_grads"]
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(ours[name] / scale, gradient / scale, rtol=0, atol=5e-4, msg=name)
