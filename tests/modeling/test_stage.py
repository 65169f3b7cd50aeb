"""What every dense stage does, with parts that say what the test wants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import IGNORED, NEGATIVE, ImagePredictions
from engine.modeling.box_coding import DeltaCoder
from engine.modeling.dense.stage import SCORE_RULES, DenseParts, DenseStage, HeadOutputs
from engine.modeling.selection import Selection
from engine.structures import CONTINUOUS, Targets


def stage(assign, rule: str = "class", **selection) -> DenseStage:
    anchors = AnchorGenerator([[8]], [1.0], [8], CONTINUOUS)
    parts = DenseParts(nn.Identity(), anchors, assign, DeltaCoder(), None, SCORE_RULES[rule], Selection(**selection))
    return DenseStage(parts)


def grid(of: DenseStage, height: int = 1, width: int = 3) -> AnchorGrid:
    return of.anchor_generator([torch.zeros(1, 1, height, width)])


def test_rules_may_ask_for_predictions() -> None:
    """Each box is learned by the anchor that scores highest for its class; predictions are float32 and decoded."""
    seen: list[ImagePredictions] = []

    def best_scored(anchors: AnchorGrid, gt_boxes: Tensor, predictions: ImagePredictions | None = None) -> Tensor:
        seen.append(predictions)
        matched = torch.full((len(anchors.boxes),), NEGATIVE)
        best = predictions.logits[:, predictions.gt_labels].argmax(dim=0)  # (M,)
        matched[best] = torch.arange(len(gt_boxes))
        return matched

    dense = stage(best_scored)
    logits = torch.tensor([[[0.0, 5.0], [1.0, 0.0], [9.0, 1.0]]], dtype=torch.bfloat16, requires_grad=True)
    outputs = HeadOutputs(logits, torch.zeros(1, 3, 4, dtype=torch.bfloat16))
    boxes = torch.tensor([[0.0, 0, 9, 9], [5.0, 0, 9, 9], [16.0, -4, 24, 4]])
    target = Targets(boxes, torch.tensor([1, 0, 0]), torch.tensor([False, False, True]), 0, (8, 24))
    anchors = grid(dense)
    labels, gt_boxes = dense.assign_targets(outputs, anchors, [target])
    assert labels.tolist() == [[1, NEGATIVE, 0]]  # the crowd around the third anchor takes nothing from it
    assert torch.equal(gt_boxes[0, [0, 2]], boxes[:2])
    (predictions,) = seen
    assert predictions.logits.dtype == torch.float32 and not predictions.logits.requires_grad
    assert torch.equal(predictions.boxes, anchors.boxes)  # deltas of 0


def test_crowds_silence_negatives_only() -> None:
    dense = stage(lambda anchors, gt_boxes, predictions: torch.tensor([NEGATIVE, NEGATIVE, IGNORED]))
    target = Targets(torch.tensor([[-4.0, -4, 4, 4]]), torch.tensor([0]), torch.tensor([True]), 0, (8, 24))
    outputs = HeadOutputs(torch.zeros(1, 3, 1), torch.zeros(1, 3, 4))
    labels, _ = dense.assign_targets(outputs, grid(dense), [target])
    assert labels.tolist() == [[IGNORED, NEGATIVE, IGNORED]]


@pytest.mark.parametrize(
    ("rule", "kept", "scores"),
    [
        ("class", [2, 0], [0.9, 0.6]),  # above 0.5, best class scores first
        ("sqrt", [0, 2], [0.6**0.5, 0.18**0.5]),  # 0.6 x 1.0 ranks before 0.9 x 0.2
        ("product", [2, 0], [0.18, 0.6]),  # ranked by class score, scored by the product
        ("joint", [0, 1], [0.6**0.5, 0.4**0.5]),  # sqrt(0.9 x 0.2) is not above 0.5, sqrt(0.4 x 1.0) is
    ],
)
def test_score_rules_by_hand(rule: str, kept: list[int], scores: list[float]) -> None:
    dense = stage(None, rule, score_thresh=0.5, pre_nms_top_n=2)
    cls, centerness = torch.tensor([[[0.6], [0.4], [0.9]]]), torch.tensor([[1.0, 1.0, 0.2]])
    outputs = HeadOutputs(cls.logit(), torch.zeros(1, 3, 4), torch.special.logit(centerness, eps=1e-7))
    (found,) = dense.candidates(outputs, grid(dense), [(8, 24)])
    torch.testing.assert_close(
        found.boxes[:, 0].sort().values, torch.tensor([max(8.0 * k - 4, 0) for k in sorted(kept)])
    )
    torch.testing.assert_close(found.scores.sort().values, torch.tensor(sorted(scores)), rtol=1e-4, atol=1e-4)
    dense.selection = Selection(score_thresh=0.5, pre_nms_top_n=1)
    (best,) = dense.candidates(outputs, grid(dense), [(8, 24)])
    assert best.boxes[:, 0].tolist() == [max(8.0 * kept[0] - 4, 0)]
