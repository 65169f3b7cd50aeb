"""Class losses that learn the IoU of a positive's box, in the stages that have a key for them."""

from __future__ import annotations

import pytest
import torch

from engine.assembly.model import build_model
from engine.modeling.dense.class_losses import DENSE_CLS_LOSSES
from engine.modeling.dense.stage import DenseStage, HeadOutputs
from engine.structures import ImageBatch, Targets
from tests.modeling.two_stage import small_config

FILES = {name: f"{name.lower()}/{name.lower()}_R_50_FPN_1x.yaml" for name in ("ATSS", "RETINANET", "FCOS")}
SIZE = (128, 128)


def stage_of(name: str, loss: str, **settings: object) -> DenseStage:
    given = {f"MODEL.{name}.CLS_LOSS": loss, f"MODEL.{name}.NUM_CLASSES": 4, **settings}
    torch.manual_seed(0)
    return build_model(small_config(FILES[name], 3, **given)).rpn


def outputs_of(stage: DenseStage, is_perfect: bool, target: Targets) -> tuple[HeadOutputs, object]:
    """Outputs with logits of 0 whose boxes are the targets, or ones that overlap them a little."""
    features = [torch.zeros(1, 64, -(-SIZE[0] // s), -(-SIZE[1] // s)) for s in (8, 16, 32, 64, 128)]
    with torch.no_grad():
        outputs, anchors = stage(features, SIZE)
    outputs.logits = torch.zeros_like(outputs.logits).requires_grad_()
    labels, gt_boxes = stage.assign_targets(outputs, anchors, [target])
    box = gt_boxes[0] if is_perfect else gt_boxes[0] * 0.98
    is_positive = labels[0] >= 0
    codes = outputs.codes[0].clone()
    codes[is_positive] = stage.coder.encode(box[is_positive], anchors.boxes[is_positive])
    outputs.codes = codes[None]
    return outputs, anchors


@pytest.fixture
def target() -> Targets:
    boxes = torch.tensor([[10.0, 12, 70, 76], [60, 50, 124, 120]])
    return Targets(boxes, torch.tensor([0, 2]), torch.zeros(2, dtype=torch.bool), 0, SIZE)


@pytest.mark.parametrize("name", FILES)
def test_perfect_boxes_learn_as_with_hard_labels(name: str, target: Targets) -> None:
    """With qualities of 1, quality focal loss is twice focal loss with alpha 0.5."""
    soft, hard = (stage_of(name, loss, **{f"MODEL.{name}.LOSS_ALPHA": 0.5}) for loss in ("quality_focal", "focal"))
    outputs, anchors = outputs_of(soft, True, target)
    ours, theirs = (stage.train().losses(outputs, anchors, [target])["loss_cls"] for stage in (soft, hard))
    torch.testing.assert_close(ours, 2 * theirs, rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", ["quality_focal", "varifocal"])
@pytest.mark.parametrize("name", FILES)
def test_scores_learn_the_iou_and_boxes_do_not_learn_from_scores(name: str, loss: str, target: Targets) -> None:
    stage = stage_of(name, loss).train()
    outputs, anchors = outputs_of(stage, False, target)
    outputs.codes.requires_grad_()
    labels, gt_boxes = stage.assign_targets(outputs, anchors, [target])
    positive = labels[0] >= 0
    qualities = stage.qualities(outputs.codes[0, positive], anchors.boxes[positive], gt_boxes[0, positive])
    assert ((qualities > 0.5) & (qualities < 0.99)).all()
    outputs.logits.data[0, positive, labels[0, positive]] = qualities.logit()
    stage.losses(outputs, anchors, [target])["loss_cls"].backward()
    assert outputs.codes.grad is None or not outputs.codes.grad.any()  # qualities are detached
    learnt = outputs.logits.grad[0, positive, labels[0, positive]]
    assert learnt.abs().max() < 1e-6  # their scores are right already


def test_images_without_boxes(target: Targets) -> None:
    nothing = target[target.labels > 9]
    for name in FILES:
        model = build_model(small_config(FILES[name], 3, **{f"MODEL.{name}.CLS_LOSS": "quality_focal"})).train()
        losses = model(ImageBatch(torch.randn(1, 3, *SIZE), [SIZE]), [nothing])
        assert all(loss.isfinite() for loss in losses.values()) and losses["loss_cls"] > 0


def test_alpha_of_every_loss() -> None:
    logits, labels = torch.zeros(1, 1), torch.tensor([-1])
    negative = {name: float(DENSE_CLS_LOSSES.get(name)(0.25, 2.0)(logits, labels, **extra)) for name, extra in (
        ("focal", {}),
        ("quality_focal", {"qualities": torch.zeros(0)}),
        ("varifocal", {"qualities": torch.zeros(0)}),
    )}  # fmt: skip
    assert negative["focal"] == pytest.approx(negative["varifocal"]) == pytest.approx(0.75 * negative["quality_focal"])
