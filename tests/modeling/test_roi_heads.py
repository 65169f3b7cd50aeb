"""Faster and Cascade R-CNN heads, with predictors that say what the test wants."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.layers.norm import NORMS
from engine.modeling.assign import match_boxes
from engine.modeling.box_coding import DeltaCoder
from engine.modeling.selection import Selection
from engine.modeling.two_stage.box_head import (
    FEATURE_EXTRACTORS,
    BoxHead,
    ExtractorShape,
    FPNPredictor,
    RegionTargets,
)
from engine.modeling.two_stage.cascade import SCORE_MEANS, CascadeRoIHeads, CascadeStage
from engine.modeling.two_stage.roi_heads import StandardRoIHeads
from engine.modeling.two_stage.roi_losses import BOX_LOSSES, CLS_LOSSES, cross_entropy, focal, l1
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.modeling.two_stage.sampling import SAMPLERS, Sampling
from engine.structures import CONTINUOUS, Detections, Targets

K = 3
SIZE = (64, 96)
CODER = DeltaCoder((10.0, 10.0, 5.0, 5.0))


def box_head(class_agnostic: bool = True, extractor: str = "FPN2MLPFeatureExtractor", **changed) -> BoxHead:
    shape = ExtractorShape(4, 7, fc_dim=32, conv_dim=32, num_convs=2, use_gn=extractor == "FPNXconv1fcFeatureExtractor")
    parts = {"coder": CODER, "cls_loss": cross_entropy, "box_loss": l1, **changed}
    return BoxHead(FEATURE_EXTRACTORS.get(extractor)(shape), FPNPredictor(32, K, class_agnostic), **parts)


def parts(**changed) -> dict:
    return {
        "pooler": RoIPooler(7, (4, 8), CONTINUOUS),
        "num_classes": K,
        "sampling": Sampling(32, 0.25, SAMPLERS.get("random")),
        "selection": Selection(nms_thresh=0.5),
        "convention": CONTINUOUS,
        **changed,
    }


def standard(head: BoxHead | None = None, **changed) -> StandardRoIHeads:
    return StandardRoIHeads(
        box=head or box_head(), matcher=partial(match_boxes, fg_iou_thresh=0.5, bg_iou_thresh=0.5), **parts(**changed)
    )


NORM_TYPES = {NORMS.get(name) for name in ("GN", "BN", "SyncBN", "FrozenBN")}
IOUS, LOSS_WEIGHTS = (0.5, 0.6, 0.7), (1.0, 0.5, 0.25)


def cascade(heads: list[BoxHead] | None = None, loss_weights: tuple[float, ...] = LOSS_WEIGHTS, **changed):
    heads = heads or [box_head() for _ in range(3)]
    stages = [
        CascadeStage(head, partial(match_boxes, fg_iou_thresh=iou, bg_iou_thresh=iou), weight)
        for head, iou, weight in zip(heads, IOUS, loss_weights, strict=False)
    ]
    settings_ = {"score_mean": SCORE_MEANS.get("probabilities"), **changed}
    return CascadeRoIHeads(stages=stages, **parts(**settings_))


def detect(heads: StandardRoIHeads, maps: list[torch.Tensor], given: list[Detections]) -> list[Detections]:
    return [heads.selection(candidates) for candidates in heads.eval().candidates(maps, given)]


def features(num: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(num, 4, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in (4, 8, 16)]


def proposals(boxes: list) -> Detections:
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(table, torch.ones(len(table)), torch.zeros(len(table), dtype=torch.int64), SIZE)


def targets(boxes: list, labels: list[int], ignore: list[bool] | None = None, image_id: int = 0) -> Targets:
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.tensor(ignore or [False] * len(table), dtype=torch.bool)
    return Targets(table, torch.tensor(labels, dtype=torch.int64), flags, image_id, SIZE)


class Says(nn.Module):
    """A predictor with one answer for every region."""

    def __init__(self, logits: list[float], deltas: list[list[float]]) -> None:
        super().__init__()
        self.logits, self.deltas = torch.tensor(logits), torch.tensor(deltas)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(len(features), -1), self.deltas.expand(len(features), -1, -1)


def saying(logits: list[float], deltas: list[list[float]], **changed) -> BoxHead:
    head = box_head(**changed)
    head.predictor = Says(logits, deltas)
    return head


# ---------------------------------------------------------------- what a proposal learns


def test_regions_by_hand() -> None:
    heads = standard()
    target = targets([[0, 0, 10, 10], [40, 0, 60, 20], [70, 0, 96, 64]], [2, 0, 1], [False, False, True])
    # IoU 0.6 with the first box; 0.4 with it; in the ignored region; far from all.
    given = proposals([[0, 0, 10, 6], [0, 0, 10, 4], [72, 10, 90, 30], [0, 40, 20, 60]])
    regions = heads.sample(features(), [given.boxes], [target], heads.box, heads.matcher)
    rows = dict(zip(map(tuple, regions.boxes[0].tolist()), regions.labels.tolist(), strict=True))
    assert rows == {
        (0, 0, 10, 6): 2,
        (0, 0, 10, 4): K,
        (0, 40, 20, 60): K,
        (0, 0, 10, 10): 2,  # the ground truth itself
        (40, 0, 60, 20): 0,
    }
    assert regions.is_gt.sum() == 2
    pairs = zip(regions.boxes[0].tolist(), regions.gt_boxes.tolist(), strict=True)
    learned = {tuple(box): tuple(gt) for box, gt in pairs}
    assert learned[(0, 0, 10, 6)] == (0, 0, 10, 10) and learned[(40, 0, 60, 20)] == (40, 0, 60, 20)
    without = standard(append_gt=False).sample(features(), [given.boxes], [target], heads.box, heads.matcher)
    assert len(without.labels) == 3 and not without.is_gt.any()


def test_ohem_asks_the_head() -> None:
    head = box_head()
    heads = standard(head, sampling=Sampling(2, 0.0, SAMPLERS.get("ohem")), append_gt=False)
    given = proposals([[0, 0, 8, 8], [8, 8, 30, 40], [0, 0, 96, 64], [50, 10, 60, 60]]).boxes
    regions = heads.sample(features(), [given], [targets([], [])], head, heads.matcher)
    with torch.no_grad():
        logits, _ = head(heads.pooler(features(), [given]))
    hardest = given[cross_entropy(logits, torch.full((4,), K)).topk(2).indices]
    assert sorted(regions.boxes[0].tolist()) == sorted(hardest.tolist())


# ---------------------------------------------------------------- losses


def test_loss_by_hand() -> None:
    head = box_head(cls_loss_weight=2.0, box_loss_weight=3.0)
    boxes, gt = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10]]), torch.tensor([[1.0, 0, 11, 10], [0.0, 0, 0, 0]])
    regions = RegionTargets([boxes], torch.tensor([1, K]), gt, torch.zeros(2, dtype=torch.bool))
    losses = head.losses(torch.zeros(2, K + 1), torch.zeros(2, 1, 4), regions)
    # A shift of a tenth of the width, times 10, over two regions.
    assert losses["loss_box_reg"].item() == pytest.approx(3 * 1.0 / 2)
    assert losses["loss_classifier"].item() == pytest.approx(2 * torch.log(torch.tensor(4.0)).item())


def test_each_class_has_its_deltas() -> None:
    head = box_head(class_agnostic=False)
    deltas = torch.arange(2 * K * 4.0).view(2, K, 4) / 50
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.0, 5, 25, 15]])
    decoded = head.decode(deltas, boxes, torch.tensor([2, 0]))
    expected = CODER.decode(torch.stack([deltas[0, 2], deltas[1, 0]]), boxes)
    torch.testing.assert_close(decoded, expected)


@pytest.mark.parametrize("name", BOX_LOSSES.names())
def test_box_losses_are_zero_for_the_right_box_only(name: str) -> None:
    loss = BOX_LOSSES.get(name)
    box = torch.tensor([[5.0, 5, 15, 25]])
    deltas = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert loss(deltas, deltas, box, box).tolist() == pytest.approx([0.0], abs=1e-6)
    assert loss(deltas, deltas + 0.5, box, box + 3).item() > 0.1


def test_focal_is_weighted_cross_entropy() -> None:
    logits, labels = torch.randn(20, K + 1, generator=torch.Generator().manual_seed(0)), torch.arange(20) % (K + 1)
    plain = CLS_LOSSES.get("cross_entropy")(logits, labels)
    weights = torch.where(labels == K, 0.75, 0.25)
    torch.testing.assert_close(focal(logits, labels, alpha=0.25, gamma=0.0), weights * plain)
    assert (focal(logits, labels) < plain).all()


def test_iou_losses_of_the_second_stage_compare_boxes() -> None:
    """They touch: GIoU sees no gap, DIoU the distance of the centres; both are squares."""
    deltas = torch.zeros(1, 4)
    boxes, gt_boxes = torch.tensor([[10.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 10, 10]])
    losses = {name: BOX_LOSSES.get(name)(deltas, deltas, boxes, gt_boxes).item() for name in ("giou", "diou", "ciou")}
    assert losses == pytest.approx({"giou": 1.0, "diou": 1.2, "ciou": 1.2})


@pytest.mark.parametrize("extractor", ["FPN2MLPFeatureExtractor", "FPNXconv1fcFeatureExtractor"])
@pytest.mark.parametrize("norm_name", ["GN", "BN", "SyncBN", "FrozenBN"])
def test_extractors_with_a_norm_by_name(extractor: str, norm_name: str) -> None:
    shape = ExtractorShape(4, 7, fc_dim=32, conv_dim=32, num_convs=2, norm_name=norm_name)
    module = FEATURE_EXTRACTORS.get(extractor)(shape)
    features = module(torch.randn(3, 4, 7, 7))
    assert features.shape == (3, 32)
    assert {type(m) for m in module.modules() if type(m) in NORM_TYPES} == {NORMS.get(norm_name)}
    assert not any(m.bias is not None for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    features.sum().backward()
    module.eval()(torch.randn(0, 4, 7, 7))  # an image may have no proposals


def test_use_gn_is_group_norm_unless_a_norm_is_named() -> None:
    assert ExtractorShape(4, 7).norm == ""
    assert ExtractorShape(4, 7, use_gn=True).norm == "GN"
    assert ExtractorShape(4, 7, use_gn=True, norm_name="BN").norm == "BN"


@pytest.mark.parametrize("extractor", ["FPN2MLPFeatureExtractor", "FPNXconv1fcFeatureExtractor"])
@pytest.mark.parametrize("boxes, ignore", [([], None), ([[0, 0, 96, 64]], [True]), ([[8, 8, 40, 40]], None)])
@pytest.mark.parametrize("given", [[], [[0, 0, 30, 30], [9, 9, 41, 39]]])
def test_losses_are_finite_and_reach_every_parameter(extractor, boxes, ignore, given) -> None:
    for heads in (
        standard(box_head(class_agnostic=False, extractor=extractor)),
        cascade([box_head(extractor=extractor) for _ in range(3)]),
        cascade([box_head(extractor=extractor) for _ in range(3)], resample=False, feature_gradient=1 / 3),
    ):
        losses = heads.train().losses(features(), [proposals(given)], [targets(boxes, [1] * len(boxes), ignore)])
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


# ---------------------------------------------------------------- detections


def test_detections_by_hand() -> None:
    # Class 1 for sure, moved half a width to the right and clipped.
    head = saying([0.0, 9.0, 0.0, 0.0], [[5.0, 0, 0, 0]])
    given = proposals([[0, 0, 20, 20], [80, 10, 96, 30], [81, 10, 96, 30]])
    (found,) = detect(standard(head), features(), [given])
    assert found.labels.tolist() == [1, 1] and found.size == SIZE
    assert sorted(map(tuple, found.boxes.tolist())) == [(10, 0, 30, 20), (88, 10, 96, 30)]
    torch.testing.assert_close(found.scores, torch.tensor([0.0, 9, 0, 0]).softmax(0)[1].expand(2))


def test_several_classes_at_one_place() -> None:
    head = saying([3.0, 3.0, -9.0, 0.0], [[5.0, 0, 0, 0], [0.0, 0, 0, 0], [0.0, 0, 0, 0]], class_agnostic=False)
    (found,) = detect(standard(head), features(), [proposals([[0, 0, 20, 20]])])
    rows = dict(zip(found.labels.tolist(), map(tuple, found.boxes.tolist()), strict=True))
    assert rows == {0: (10, 0, 30, 20), 1: (0, 0, 20, 20)}


def test_no_proposals_no_detections() -> None:
    for heads in (standard(), cascade()):
        first, second = detect(heads, features(2), [proposals([]), proposals([])])
        assert len(first) == len(second) == 0 and first.boxes.shape == (0, 4)


# ---------------------------------------------------------------- cascade


def test_each_stage_moves_on_by_hand() -> None:
    stages = [saying([2.0, 0, 0, 0], [[1.0, 0, 0, 0]]), saying([0.0, 0, 0, 0], [[1.0, 0, 0, 0]])]
    heads = cascade(stages, loss_weights=(1.0, 1.0))
    (found,) = heads.eval().candidates(features(), [proposals([[0, 0, 10, 10]])])
    # Two steps of a tenth of the width.
    torch.testing.assert_close(found.boxes, torch.tensor([[2.0, 0, 12, 10]]).expand(3, 4))
    mean = (torch.tensor([2.0, 0, 0, 0]).softmax(0) + 0.25) / 2
    torch.testing.assert_close(found.scores, mean[:3])
    heads.score_mean = SCORE_MEANS.get("logits")
    (found,) = heads.candidates(features(), [proposals([[0, 0, 10, 10]])])
    torch.testing.assert_close(found.scores, torch.tensor([1.0, 0, 0, 0]).softmax(0)[:3])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 50), st.integers(4, 16), st.integers(4, 14)), min_size=1),
    st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(8, 36), st.integers(8, 24)),
)
def test_true_deltas_lead_to_the_box(rows: list, gt: tuple) -> None:
    """A head that says what it should learn gives the ground truth, whatever the region."""
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float32)
    gt_box = torch.tensor([[gt[0], gt[1], gt[0] + gt[2], gt[1] + gt[3]]], dtype=torch.float32)
    heads = cascade()
    deltas = CODER.encode(gt_box.expand(len(boxes), 4), boxes)[:, None]
    (refined,) = heads.refine(heads.box[0], deltas, torch.zeros(len(boxes), dtype=torch.int64), [boxes], [SIZE])
    torch.testing.assert_close(refined, gt_box.expand(len(boxes), 4), rtol=0, atol=1e-3)


def test_what_goes_to_the_next_stage() -> None:
    heads = cascade()
    boxes = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [90.0, 0, 96, 10]])
    regions = RegionTargets([boxes], torch.tensor([1, K, K]), boxes.clone(), torch.tensor([True, False, False]))
    logits, deltas = torch.zeros(3, K + 1), torch.zeros(3, 1, 4)
    deltas[2, 0, 0] = 200.0  # far outside: empty once clipped
    (again,) = heads.refine_for_training(heads.box[0], logits, deltas, regions, [SIZE])
    assert again.tolist() == [[20, 0, 30, 10]]  # the gt box will join anew
    heads.resample = False
    (again,) = heads.refine_for_training(heads.box[0], logits, deltas, regions, [SIZE])
    assert again.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]


def test_losses_have_a_name_and_a_weight_for_each_stage() -> None:
    torch.manual_seed(0)
    heads = cascade().train()
    heads.box[1].load_state_dict(heads.box[0].state_dict())
    given, target = [proposals([[0, 0, 30, 30], [60, 10, 80, 30]])], [targets([[0, 0, 30, 30]], [1])]
    losses = heads.losses(features(), given, target)
    kinds = ("loss_classifier", "loss_box_reg")
    assert list(losses) == [f"{kind}_stage{i}" for i in range(3) for kind in kinds]
    heads.loss_weights = (1.0, 5.0, 0.25)
    heavier = heads.losses(features(), given, target)
    torch.testing.assert_close(heavier["loss_classifier_stage1"], 10 * losses["loss_classifier_stage1"])


@pytest.mark.parametrize("resample", [True, False])
def test_gradient_into_the_pyramid_is_scaled(resample: bool) -> None:
    grads = []
    for factor in (1.0, 0.5):
        torch.manual_seed(0)
        heads = cascade(resample=resample, feature_gradient=factor).train()
        maps = [feature.requires_grad_(True) for feature in features()]
        losses = heads.losses(maps, [proposals([[0, 0, 30, 30], [60, 10, 80, 30]])], [targets([[0, 0, 32, 30]], [1])])
        sum(losses.values()).backward()
        grads.append((maps[0].grad, heads.box[1].predictor.cls_score.weight.grad))
    torch.testing.assert_close(grads[1][0], 0.5 * grads[0][0])
    torch.testing.assert_close(grads[1][1], grads[0][1])
