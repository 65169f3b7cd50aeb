from __future__ import annotations

from functools import partial

import pytest
import torch

from engine.layers.iou_losses import iou
from engine.layers.losses import focal_loss_sum
from engine.modeling.anchors import AnchorGenerator
from engine.modeling.assign import assign_ssc
from engine.modeling.box_coding import DistanceCoder
from engine.modeling.dense.centerness import CenternessHead, CenternessStage, exponential, loss_of_codes
from engine.modeling.dense.stage import SCORE_RULES, DenseParts, HeadOutputs
from engine.modeling.selection import Selection
from engine.structures import CONTINUOUS, INCLUSIVE, PixelConvention, Targets

RANGES = [(-1, 1e8)]


def stage(unit: float = 8, convention: PixelConvention = CONTINUOUS, rule: str = "sqrt", **changed) -> CenternessStage:
    coder = DistanceCoder(1.0, convention.inset)
    parts = DenseParts(
        CenternessHead(32, 2, num_levels=1, num_convs=1, activation=exponential),
        AnchorGenerator([[unit]], [1.0], [8], convention),
        partial(assign_ssc, level_ranges=RANGES, margin=0.0),
        coder,
        partial(focal_loss_sum, alpha=0.25, gamma=2.0),
        SCORE_RULES[rule],
        Selection(**changed),
    )
    return CenternessStage(parts, box_loss=partial(loss_of_codes, coder=coder, loss=iou))


@pytest.mark.parametrize("unit, distances", [(8, [0.5, 0.25, 1.0, 2.0]), (1, [4.0, 2.0, 8.0, 16.0])])
def test_distances_in_strides_or_pixels(unit: int, distances: list[float]) -> None:
    fcos = stage(unit)
    anchors = fcos.anchor_generator([torch.zeros(1, 1, 2, 2)])
    box = fcos.coder.decode(torch.tensor([distances]), anchors.boxes[3:])  # the point (8, 8)
    assert box.tolist() == [[4, 6, 16, 24]]


def test_points_of_the_reference() -> None:
    """At stride / 2 + k stride in its inclusive pixels: (4, 4), so that a box from pixel 0 to 9 is 4 and 5 away."""
    fcos = stage(1, INCLUSIVE)
    anchors = fcos.anchor_generator([torch.zeros(1, 1, 1, 1)])
    (box,) = fcos.coder.decode(torch.tensor([[4.0, 4, 5, 5]]), anchors.boxes)
    assert box.tolist() == [0, 0, 10, 10]  # its last pixel, 9, ends at 10


def test_head_variants() -> None:
    features = [torch.randn(1, 32, 4, 4)]
    for activation in (exponential, torch.relu):
        head = CenternessHead(32, 2, num_levels=1, num_convs=1, activation=activation)
        outputs = head(features)
        assert (outputs.codes >= 0).all()
        assert ((outputs.codes > 0).all()) == (activation is exponential)
    torch.manual_seed(0)
    on_cls = CenternessHead(32, 2, num_levels=1, num_convs=1, centerness_on_reg=False)
    on_reg = CenternessHead(32, 2, num_levels=1, num_convs=1, centerness_on_reg=True)
    on_reg.load_state_dict(on_cls.state_dict())
    assert not torch.allclose(on_cls(features).centerness, on_reg(features).centerness)


def test_threshold_on_class_or_joint_score() -> None:
    fcos = stage(score_thresh=0.4, nms_thresh=0.0)
    joint = stage(score_thresh=0.4, nms_thresh=0.0, rule="joint")
    anchors = fcos.anchor_generator([torch.zeros(1, 1, 1, 2)])
    # Class scores 0.5 and 0.3, centerness 0.1 and 0.9: joint scores 0.22 and 0.52.
    logits = torch.tensor([[[0.5, 0.01], [0.3, 0.01]]]).logit()
    outputs = HeadOutputs(logits, torch.ones(1, 2, 4), torch.tensor([[0.1, 0.9]]).logit())
    (found,) = fcos.candidates(outputs, anchors, [(16, 16)])
    torch.testing.assert_close(fcos.selection(found).scores, torch.tensor([0.05]).sqrt())
    (found,) = map(joint.selection, joint.candidates(outputs, anchors, [(16, 16)]))
    torch.testing.assert_close(found.scores, torch.tensor([0.27]).sqrt())


def test_a_perfect_prediction_costs_nothing_and_no_box_trains() -> None:
    fcos = stage().train()
    features = [torch.zeros(1, 32, 3, 3)]
    anchors = fcos.anchor_generator(features)
    box = torch.tensor([[2.0, 2, 15, 15]])
    targets = Targets(box, torch.tensor([1]), torch.tensor([False]), 0, (24, 24))
    outputs = HeadOutputs(torch.zeros(1, 9, 2), torch.zeros(1, 9, 4))
    labels, gt_boxes = fcos.assign_targets(outputs, anchors, [targets])
    assert labels[0].tolist() == [-1, -1, -1, -1, 1, -1, -1, -1, -1]
    logits = torch.full((1, 9, 2), -50.0)
    logits[0, 4, 1] = 50.0
    codes = torch.full((1, 9, 4), 0.5)
    codes[0, 4] = torch.tensor([6.0, 6, 7, 7]) / 8  # of the point (8, 8)
    losses = fcos.losses(HeadOutputs(logits, codes, torch.zeros(1, 9)), anchors, [targets])
    assert losses["loss_cls"] < 1e-6 and losses["loss_reg"].abs() < 1e-6
    nothing = Targets.empty(image_id=0, size=(24, 24))
    losses = fcos.losses(fcos.head(features), anchors, [nothing])
    sum(losses.values()).backward()
    assert losses["loss_reg"] == 0 and losses["loss_centerness"] == 0
