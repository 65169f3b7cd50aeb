"""Our TOOD computes what mmdetection computes (see the README of the golden figures).

Its boxes are not clipped to the image when it tests; ours are, so boxes are compared before clipping.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.checkpoint.foreign import mmdetection
from engine.layers.nms import class_nms
from engine.layers.quality_losses import quality_focal_loss_sum
from engine.modeling.anchors import AnchorGrid
from engine.modeling.assign import ImagePredictions
from engine.modeling.assign_aligned import Alignment, aligned_quality, assign_task_aligned
from engine.modeling.dense.stage import HeadOutputs
from engine.modeling.dense.tood_head import logit_of_mean, sample_boxes
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.selection import Selection
from engine.structures import CONTINUOUS, ImageBatch, PixelConvention, Targets
from tests.modeling.conftest import flatten_levels
from tests.modeling.two_stage import assert_same_set, converted_model, freeze_statistics, small_config, targets_of

SIZE = (256, 320)
BATCHES = {"train": [0], "train_batch": [0, 1], "train_empty": [1], "train_batch_one_empty": [0, 1]}
"""Which of the two images each recorded training step has."""


TARGETS = ("labels", "bbox_targets", "norm_alignment_metrics")


class NotClipping(PixelConvention):
    """mmdetection's, when TOOD tests."""

    def clip(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return boxes


class Case:
    """The recorded model, and ours with its weights."""

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self.data = torch.load(folder / "golden_tood.pt", weights_only=True)
        body = torch.load(folder / "golden_atss.pt", weights_only=True)["state_dict"]
        weights = {name: tensor for name, tensor in body.items() if name.startswith("backbone.")}
        num_classes = self.data["meta"]["num_classes"]
        cfg = small_config(
            "tood/tood_R_50_FPN_1x.yaml",
            **{
                "MODEL.DENSE.NUM_CLASSES": num_classes + 1,
                "MODEL.DENSE.ARGS": arguments,
                "TEST.DETECTIONS_PER_IMG": 300,
                "MODEL.RETINANET.USE_C5": False,
            },
        )
        self.model = converted_model(cfg, weights | self.data["state_dict"]).eval()
        self.rpn, self.num_classes = self.model.rpn, num_classes
        padded = self.data["padded_case"]
        self.images, self.sizes = [self.data["image"], padded["image"]], [SIZE, tuple(padded["img_shape"])]
        with torch.no_grad():
            self.features = self.model.backbone(self.data["image"])
            self.outputs, self.anchors = self.rpn(self.features, SIZE)

    def in_pixels(self, bbox_preds: list[Tensor]) -> Tensor:
        """Their boxes, which are in strides: (N, R, 4)."""
        return flatten_levels([m * s for m, s in zip(bbox_preds, self.anchors.strides, strict=True)], 4)

    def check_final(self, outputs: HeadOutputs, theirs: dict[str, Tensor], selection: Selection) -> None:
        anchors = replace(self.anchors, convention=NotClipping(0.0, "exact"))
        self.rpn.selection, usual = selection, self.rpn.selection
        (candidates,) = self.rpn.candidates(outputs, anchors, [SIZE])
        self.rpn.selection = usual
        found = selection(candidates)
        assert_same_set(found, theirs["bboxes"], theirs["scores"], theirs["labels"], 0.01, 1e-4)

    def batch(self, name: str) -> tuple[ImageBatch, list[Targets]]:
        """The images and boxes of a recorded step."""
        images, recorded = BATCHES[name.removesuffix("_initial")], self.data[name]["gts"]
        targets = [
            targets_of(gt["bboxes"], gt["labels"], self.sizes[i]) for i, gt in zip(images, recorded, strict=True)
        ]
        tensor = torch.cat([self.images[i] for i in images])
        return ImageBatch(tensor, [self.sizes[i] for i in images]), targets

    def losses(self, model: GeneralizedRCNN, name: str) -> dict[str, Tensor]:
        model.rpn.follow(0 if name.endswith("_initial") else 1, max_iter=3)  # one third is the first phase
        batch, targets = self.batch(name)
        return model(batch, targets)


@pytest.fixture(scope="module")
def tood(golden_dir: Path) -> Case:
    return Case(golden_dir / "mmdet")


@pytest.fixture(scope="module")
def steps(golden_dir: Path) -> Case:
    """The same with statistics of batch norms frozen, for training."""
    case = Case(golden_dir / "mmdet")
    freeze_statistics(case.model)
    return case


# ---------------------------------------------------------------- head and detections


@torch.no_grad()
def test_tood_outputs(tood: Case) -> None:
    for ours, theirs in zip(tood.anchors.boxes_per_level, tood.data["anchors"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    scores = flatten_levels(tood.data["cls_scores"], tood.num_classes)
    torch.testing.assert_close(tood.rpn.class_scores(tood.outputs), scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(tood.outputs.codes, tood.in_pixels(tood.data["bbox_preds"]), rtol=0, atol=2.5e-3)


@torch.no_grad()
def test_tood_decomposition_and_sampling(tood: Case) -> None:
    head, theirs = tood.rpn.head, tood.data["internals"]
    for level, feature in enumerate(tood.features):
        layers = head.layers(feature)
        if level >= 2:
            recorded = torch.cat(theirs["inter_feats_levels_2_to_4"][level - 2], 1)
            torch.testing.assert_close(layers, recorded, rtol=0, atol=1e-4)
        pooled = layers.mean((2, 3), keepdim=True)
        for task, decomposition in (("cls", head.cls_decomp), ("reg", head.reg_decomp)):
            attention = decomposition.layer_attention(pooled).sigmoid()
            torch.testing.assert_close(attention, theirs[f"{task}_layer_attention"][level], rtol=0, atol=1e-5)
            chosen = decomposition(layers, pooled)
            torch.testing.assert_close(chosen, theirs[f"{task}_decomp"][level], rtol=0, atol=1e-4)
        before, offset = theirs["reg_bbox_before_sampling"][level], theirs["reg_offset"][level]
        torch.testing.assert_close(head.reg_offset(layers), offset, rtol=0, atol=1e-4)
        torch.testing.assert_close(sample_boxes(before, offset), tood.data["bbox_preds"][level], rtol=0, atol=1e-4)


@torch.no_grad()
def test_tood_detections(tood: Case) -> None:
    tood.check_final(tood.outputs, tood.data["final"], tood.rpn.selection)
    # nms_pre, score_thr, iou_threshold, max_per_img of the recorded variant
    tood.check_final(tood.outputs, tood.data["variant"]["final"], Selection(0.02, 25, 0.45, 40))


@torch.no_grad()
def test_anchor_based_tood(golden_dir: Path) -> None:
    case = Case(golden_dir / "mmdet", anchor_type="anchor_based")
    theirs = case.data["anchor_based"]
    torch.testing.assert_close(case.outputs.codes, case.in_pixels(theirs["bbox_preds"]), rtol=0, atol=2.5e-3)
    case.check_final(case.outputs, theirs["final"], case.rpn.selection)


@torch.no_grad()
def test_boxes_of_tood_are_clipped_before_suppression(tood: Case) -> None:
    before = tood.data["pre_nms"]
    boxes = CONTINUOUS.clip(before["bboxes"], SIZE)
    kept = class_nms(boxes, before["scores"], before["labels"], 0.6)
    (found,) = tood.model(ImageBatch(tood.data["image"], [SIZE]))
    assert_same_set(found, boxes[kept], before["scores"][kept], before["labels"][kept], 0.01, 1e-4)


@torch.no_grad()
def test_tood_on_a_padded_image(tood: Case) -> None:
    padded = tood.data["padded_case"]
    outputs, _ = tood.rpn(tood.model.backbone(padded["image"]), SIZE)
    tood.check_final(outputs, padded["final_not_rescaled"], tood.rpn.selection)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("name", [*BATCHES, "train_initial", "train_batch_initial", "train_empty_initial"])
def test_losses_and_gradients_of_tood(steps: Case, name: str) -> None:
    recorded = steps.data[name]
    theirs = recorded.get("losses", steps.data["losses"])
    steps.model.zero_grad()
    losses = steps.losses(steps.model, name)
    torch.testing.assert_close(losses["loss_cls"], sum(theirs["loss_cls"]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses["loss_reg"], sum(theirs["loss_bbox"]), rtol=1e-4, atol=1e-6)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in steps.model.parameters())
    ours = {name: parameter.grad for name, parameter in steps.model.named_parameters()}
    for key, gradient in mmdetection.translate(recorded.get("grads", steps.data["grads"])).items():
        if key in ours:
            scale = gradient.abs().max().clamp(min=1e-9)
            torch.testing.assert_close(ours[key] / scale, gradient / scale, rtol=0, atol=1e-3, msg=key)


@pytest.mark.parametrize("name", ["train", "train_batch", "train_batch_one_empty", "train_initial"])
def test_anchors_of_tood_learn_the_same(steps: Case, name: str) -> None:
    recorded = steps.data[name]
    batch, targets = steps.batch(name)
    with torch.no_grad():
        outputs, anchors = steps.rpn(steps.model.backbone(batch.tensor), batch.padded_size)
    learn = steps.rpn.initial_targets if name.endswith("_initial") else steps.rpn.aligned_targets
    labels, gt_boxes, weights = learn(outputs, anchors, targets)
    theirs = {key: torch.stack([image[key] for image in recorded["targets"]["per_image"]]) for key in TARGETS}
    is_positive = theirs["labels"] < steps.num_classes  # the class after the last one is the background
    assert torch.equal(labels >= 0, is_positive)
    assert torch.equal(labels[is_positive], theirs["labels"][is_positive])
    torch.testing.assert_close(gt_boxes, theirs["bbox_targets"][is_positive], rtol=0, atol=1e-3)
    box_weights = torch.cat([level["box_weight"] for level in recorded["loss_levels"] if "box_weight" in level])
    torch.testing.assert_close(weights.sort().values, box_weights.sort().values, rtol=1e-3, atol=1e-6)
    if not name.endswith("_initial"):
        torch.testing.assert_close(weights, theirs["norm_alignment_metrics"][is_positive], rtol=1e-3, atol=1e-6)


def test_four_steps_of_sgd(steps: Case) -> None:
    model, sgd = copy.deepcopy(steps.model), steps.data["sgd"]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=sgd["lr"], momentum=sgd["momentum"], weight_decay=sgd["weight_decay"]
    )
    found = []
    for _ in sgd["total_loss"]:
        optimizer.zero_grad()
        total = sum(steps.losses(model, "train").values())
        total.backward()
        optimizer.step()
        found.append(total.item())
    # The fourth of theirs moves by 3.3e-4 when the image does by 2e-6.
    assert found[:3] == pytest.approx(sgd["total_loss"][:3], rel=1e-4)
    assert found == pytest.approx(sgd["total_loss"], rel=4e-4)


# ---------------------------------------------------------------- the rule and the functions


def test_task_aligned_assignment(tood: Case) -> None:
    for case in tood.data["assigner_cases"]:
        anchors = AnchorGrid(case["priors"], [(1, len(case["priors"]))], [(8, 8)], [8], 1, CONTINUOUS)
        scores, boxes = case["scores"], case["bboxes"]
        predictions = ImagePredictions(scores.double().logit(), case["gt_labels"], lambda boxes=boxes: boxes)
        matched = assign_task_aligned(anchors, case["gt_bboxes"], predictions)
        assert torch.equal(matched + 1, case["gt_inds"])  # theirs: 0 is negative
        positive = matched >= 0
        gt_idx = matched[positive]
        metrics, ious = case["assign_metrics"][positive], case["max_overlaps"][positive]
        found = scores[positive, case["gt_labels"][gt_idx]]
        torch.testing.assert_close(Alignment()(found, ious), metrics, rtol=1e-4, atol=1e-9)
        qualities = torch.zeros(len(scores))
        qualities[positive] = aligned_quality(metrics, ious, gt_idx, len(case["gt_bboxes"]))
        torch.testing.assert_close(qualities, case["norm_alignment_metrics"], rtol=1e-4, atol=1e-7)


def test_score_of_two_logits(tood: Case) -> None:
    case = tood.data["functions"]["sigmoid_geometric_mean"]
    a, b = (case[name].clone().requires_grad_() for name in ("a", "b"))
    score = logit_of_mean(a, b).sigmoid()
    torch.testing.assert_close(score, case["out"], rtol=1e-5, atol=1e-7)
    score.sum().backward()
    torch.testing.assert_close(a.grad, case["grad_a"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(b.grad, case["grad_b"], rtol=1e-4, atol=1e-6)


def test_quality_focal_loss_of_probabilities(tood: Case) -> None:
    case = tood.data["functions"]["qfl_on_probabilities"]
    prob = case["prob"].double().requires_grad_()
    labels = torch.where(case["labels"] < prob.shape[1], case["labels"], -1)  # the class after the last is background
    rows = zip(prob.logit()[:, None], labels[:, None], case["quality"].double()[:, None], strict=True)
    losses = torch.stack([quality_focal_loss_sum(z, label, q[label >= 0]) for z, label, q in rows])
    torch.testing.assert_close(losses.float(), case["per_anchor"], rtol=1e-5, atol=1e-6)
    (losses * case["weight"]).sum().backward()
    torch.testing.assert_close(prob.grad.float(), case["grad"], rtol=1e-4, atol=1e-5)
