from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from engine.modeling.anchors import AnchorGenerator
from engine.modeling.assign import IGNORED, NEGATIVE, match_boxes
from engine.modeling.box_coding import DeltaCoder
from engine.modeling.two_stage.roi_losses import smooth_l1
from engine.modeling.two_stage.rpn import RPN, ProposalRule, SingleConvRPNHead
from engine.modeling.two_stage.sampling import SAMPLERS, Sampling
from engine.structures import CONTINUOUS, INCLUSIVE, PixelConvention, Targets

STRIDES = [8, 16]


def rpn(
    limits: tuple[int, int, int] = (100, 0, 50),
    convention: PixelConvention = CONTINUOUS,
    nms_thresh: float = 0.7,
    min_size: float = 0.0,
    **changed,
) -> RPN:
    anchors = AnchorGenerator([[16], [32]], [0.5, 1.0, 2.0], STRIDES, convention)
    rule = ProposalRule(*limits, nms_thresh=nms_thresh, min_size=min_size)
    settings_ = {
        "matcher": partial(match_boxes, fg_iou_thresh=0.7, bg_iou_thresh=0.3, low_quality_iou=0.0),
        "sampling": Sampling(64, 0.5, SAMPLERS.get("random")),
        "coder": DeltaCoder((1.0, 1.0, 1.0, 1.0)),
        "box_loss": partial(smooth_l1, beta=1 / 9),
        "train_rule": rule,
        "test_rule": rule,
    }
    return RPN(SingleConvRPNHead(8, 3), anchors, **{**settings_, **changed})


def features(num: int = 1, height: int = 64, width: int = 96) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(num, 8, height // s, width // s, generator=generator) for s in STRIDES]


def targets(boxes: list, ignore: list | None = None, size: tuple[int, int] = (64, 96), image_id: int = 0) -> Targets:
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.tensor(ignore or [False] * len(table), dtype=torch.bool)
    return Targets(table, torch.zeros(len(table), dtype=torch.int64), flags, image_id, size)


def outputs(stage: RPN, num: int = 1, seed: int = 0):
    anchors = stage.anchor_generator(features(num))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num, len(anchors.boxes), generator=generator)
    deltas = 0.3 * torch.randn(num, len(anchors.boxes), 4, generator=generator)
    return anchors, logits, deltas


def test_head_and_anchors_run_in_the_same_order() -> None:
    stage = rpn()
    head = stage.head
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.cls_logits.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    maps = features()
    logits, deltas = head(maps)
    anchors = stage.anchor_generator(maps)
    shapes = anchors.boxes[:, 2:] - anchors.boxes[:, :2]
    ratios = shapes[:, 1] / shapes[:, 0]
    torch.testing.assert_close(ratios, 2.0 ** (logits[0].detach() - 2))
    assert deltas.shape == (1, len(anchors.boxes), 4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20), st.integers(0, 30), st.integers(0, 25), st.integers(0, 1000), st.floats(0, 12))
def test_limits(pre: int, post: int, total: int, seed: int, min_size: float) -> None:
    stage = rpn((pre, post, total), min_size=min_size).eval()
    anchors, logits, deltas = outputs(stage, seed=seed)
    (found,) = stage.propose((logits, deltas), anchors, [(60, 90)])
    assert len(found) <= (total or len(logits[0])) and len(found) <= 2 * (post or len(logits[0]))
    assert len(found) <= 2 * (pre or len(logits[0]))
    assert (found.scores.diff() <= 0).all() and not found.labels.any()
    assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= torch.tensor([90, 60])).all()
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert (sides > 0).all() and (sides >= min_size).all()


def test_a_level_suppresses_only_itself() -> None:
    stage = rpn((0, 0, 0), nms_thresh=0.3).eval()
    anchors, logits, deltas = outputs(stage)
    (both,) = stage.propose((logits, deltas), anchors, [(64, 96)])
    count = anchors.num_per_level[0]
    expected = 0
    for level in (slice(0, count), slice(count, None)):
        silent = torch.full_like(logits, -1e4)
        silent[:, level] = logits[:, level]
        (alone,) = stage.propose((silent, deltas), anchors, [(64, 96)])
        kept = alone.boxes[alone.scores > 0]
        expected += len(kept)
        assert (torch.cdist(kept, both.boxes, p=torch.inf).amin(1) < 1e-4).all()
        ious = box_iou(kept, kept).fill_diagonal_(0)
        assert ious.max() <= 0.3 + 1e-6
    assert len(both) == expected


@pytest.mark.parametrize("shift", [1e4, float("nan")])
def test_no_proposal_at_all(shift: float) -> None:
    """All boxes lie outside the image, or the training has diverged (the loss says so then)."""
    stage = rpn((100, 20, 50))
    anchors, logits, deltas = outputs(stage)
    (found,) = stage.propose((logits, deltas + shift), anchors, [(64, 96)])
    assert found.boxes.shape == (0, 4) and len(found.scores) == 0


def test_straddling_anchors_are_ignored() -> None:
    target = targets([[20, 20, 50, 50]])
    anchors, *_ = outputs(rpn())
    outside = (anchors.boxes[:, :2] < 0).any(1) | (anchors.boxes[:, 2:] >= torch.tensor([96, 64])).any(1)
    matched, _ = rpn(straddle_thresh=0).assign_in_image(anchors, target)
    assert ((matched == IGNORED) >= outside).all() and (matched[~outside] >= 0).any()
    matched, _ = rpn(straddle_thresh=-1).assign_in_image(anchors, target)
    assert (matched[outside] == NEGATIVE).any()
    # A pixel beyond the last one is outside; in the inclusive convention that is where a box ends, too.
    boxes = torch.tensor([[0.0, 0, 95.9, 63.9], [0.0, 0, 96, 64], [0.0, 0, 96.9, 64.9], [-0.5, 0, 9, 9]])
    by_hand = replace(anchors, boxes=boxes)
    inclusive = replace(by_hand, convention=INCLUSIVE)
    assert rpn(straddle_thresh=0)._is_inside(by_hand, (64, 96)).tolist() == [True, False, False, False]
    assert rpn(straddle_thresh=0)._is_inside(inclusive, (64, 96)).tolist() == [True, True, True, False]
    assert rpn(straddle_thresh=1)._is_inside(by_hand, (64, 96)).tolist() == [True, True, True, True]


def test_ignore_regions_are_not_background() -> None:
    anchors, *_ = outputs(rpn())
    crowd = targets([[0, 0, 48, 64]], [True])
    matched, _ = rpn().assign_in_image(anchors, crowd)
    clipped = anchors.boxes.clamp(min=0)
    inside = (clipped[:, 2] < 48) & (anchors.boxes[:, 0] > 0) & (anchors.boxes[:, 1] > 0) & (anchors.boxes[:, 3] < 64)
    assert (matched[inside] == IGNORED).all() and (matched[anchors.boxes[:, 0] > 48] == NEGATIVE).all()


@pytest.mark.parametrize("boxes, ignore", [([], None), ([[0, 0, 96, 64]], [True]), ([[8, 8, 40, 40]], None)])
@pytest.mark.parametrize("sampler", ["random", "ohem", "balanced"])
def test_losses_are_finite_and_reach_every_parameter(boxes: list, ignore: list | None, sampler: str) -> None:
    torch.manual_seed(0)
    stage = rpn(sampling=Sampling(64, 0.5, SAMPLERS.get(sampler))).train()
    predictions = stage(features(2), (64, 96))
    losses = stage.losses(*predictions, [targets(boxes, ignore), targets(boxes, ignore, image_id=1)])
    proposals = stage.propose(*predictions, [(64, 96)] * 2, for_losses=True)
    assert len(proposals) == 2 and not proposals[0].boxes.requires_grad
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(parameter.grad is not None for parameter in stage.parameters())


def test_normalisers() -> None:
    anchors, logits, deltas = outputs(rpn())
    some, all_ = (
        rpn(count_sampled=counted, sampling=Sampling(10**6, 0.5, SAMPLERS.get("random"))).losses(
            (logits, deltas), anchors, [targets([[8, 8, 40, 40]])]
        )
        for counted in (True, False)
    )
    matched, _ = rpn().assign_in_image(anchors, targets([[8, 8, 40, 40]]))
    for name in some:
        torch.testing.assert_close(some[name] * (matched > IGNORED).sum(), all_[name] * 10**6)


def test_perfect_deltas_lose_nothing() -> None:
    stage = rpn()
    anchors, logits, _ = outputs(stage)
    box = torch.tensor([[10.0, 10, 42, 40]])
    deltas = stage.coder.encode(box.expand(len(anchors.boxes), 4), anchors.boxes)[None]
    losses = stage.losses((logits, deltas), anchors, [targets(box.tolist())])
    assert losses["loss_rpn_box_reg"] < 1e-6 < losses["loss_objectness"]
