from __future__ import annotations

from functools import partial

import pytest
import torch

from engine.layers.losses import focal_loss_sum
from engine.modeling.anchors import AnchorGenerator
from engine.modeling.assign import assign_max_iou
from engine.modeling.box_coding import DeltaCoder
from engine.modeling.dense.retinanet import NORMALIZERS, RetinaNet, RetinaNetHead
from engine.modeling.dense.stage import SCORE_RULES, DenseParts, HeadOutputs
from engine.modeling.selection import Selection
from engine.structures import CONTINUOUS, Targets


def stage(**kwargs) -> RetinaNet:
    parts = DenseParts(
        RetinaNetHead(8, num_classes=2, num_anchors=1, num_convs=1),
        AnchorGenerator([[8]], [1.0], [8], CONTINUOUS),
        assign_max_iou,
        DeltaCoder(),
        partial(focal_loss_sum, alpha=0.25, gamma=2.0),
        SCORE_RULES["class"],
        Selection(),
    )
    return RetinaNet(parts, **kwargs)


def targets(boxes: list[list[float]], labels: list[int]) -> Targets:
    count = len(boxes)
    return Targets(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
        0,
        (16, 16),
    )


@pytest.mark.parametrize(
    "name, cls, reg",
    [
        ("positives", [6.0, 6.0], [16.0, 16.0]),  # 4 positives + 2 images; 4 positives x 4
        ("per_image", [6.0, 2.0], [6.0, 2.0]),  # 3 and at least 1, of 2 images
        ("moving_average", [90.4, 90.4], [90.4, 90.4]),  # 0.9 x 100 + 0.1 x 4
    ],
)
def test_normalizers_by_hand(name: str, cls: list[float], reg: list[float]) -> None:
    positives = [3.0, 1.0]
    divisors = NORMALIZERS.get(name)(reg_weight=4.0)(torch.tensor(positives))
    assert divisors[0].tolist() == pytest.approx(cls)
    assert divisors[1].tolist() == pytest.approx(reg)


def test_no_positive_divides_by_one() -> None:
    for name in ("positives", "per_image"):
        _, reg = NORMALIZERS.get(name)()(torch.zeros(1))
        assert reg.tolist() == [1.0]


def test_losses_by_hand() -> None:
    """One anchor equals the box, its delta is off by one: smooth L1 of 1 is 1 - beta / 2."""
    retinanet = stage(reg_beta=0.5)
    anchors = retinanet.anchor_generator([torch.zeros(1, 1, 2, 2)])  # centred on (0, 0), (8, 0), (0, 8), (8, 8)
    codes = torch.zeros(1, 4, 4)
    codes[0, 3, 0] = 1.0
    logits = torch.full((1, 4, 2), -50.0)
    logits[0, 3, 1] = 0.0  # focal loss of an even guess: 0.25 x 0.5^2 x log 2
    outputs = HeadOutputs(logits, codes)
    losses = retinanet.losses(outputs, anchors, [targets([[4.0, 4, 12, 12]], [1])])
    torch.testing.assert_close(losses["loss_cls"], torch.tensor(0.25 * 0.25 * 0.6931472 / 2))
    torch.testing.assert_close(losses["loss_reg"], torch.tensor(0.75 / 4))


def test_an_image_without_boxes_trains() -> None:
    retinanet = stage().train()
    features = [torch.randn(1, 8, 4, 4)]
    outputs = retinanet.head(features)
    losses = retinanet.losses(outputs, retinanet.anchor_generator(features), [targets([], [])])
    sum(losses.values()).backward()
    assert losses["loss_reg"] == 0
    assert all(p.grad is not None for p in retinanet.head.parameters())


def test_scores_are_class_scores() -> None:
    retinanet = stage().eval()
    anchors = retinanet.anchor_generator([torch.zeros(1, 1, 2, 2)])
    logits = torch.full((1, 4, 2), -50.0)
    logits[0, 3, 1] = 2.0
    candidates = retinanet.candidates(HeadOutputs(logits, torch.zeros(1, 4, 4)), anchors, [(16, 10)])
    (found,) = map(retinanet.selection, candidates)
    torch.testing.assert_close(found.scores, torch.tensor([2.0]).sigmoid())
    assert found.boxes.tolist() == [[4, 4, 10, 12]]  # clipped to a width of 10
    assert found.labels.tolist() == [1]


def test_the_average_is_kept_in_checkpoints() -> None:
    assert "normalizer.average" in stage(normalizer=NORMALIZERS.get("moving_average")()).state_dict()
    assert not [name for name in stage().state_dict() if "normalizer" in name]
