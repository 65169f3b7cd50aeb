from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.assembly.model import build_model
from engine.modeling.dense.stage import DenseShape
from engine.modeling.dense.tood import TOOD, build_tood
from engine.modeling.dense.tood_head import TaskDecomposition, logit_of_mean, sample_boxes
from engine.structures import CONTINUOUS, INCLUSIVE, PixelConvention, Targets
from tests.modeling.two_stage import small_config

STRIDES = (8, 16, 32, 64, 128)
CHANNELS = 32


def stage(num_classes: int = 3, convention: PixelConvention = CONTINUOUS, **arguments: Any) -> TOOD:
    torch.manual_seed(0)
    return build_tood(DenseShape(CHANNELS, STRIDES, num_classes, convention), **{"num_convs": 2, **arguments})


def pyramid(size: tuple[int, int], num_images: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    return [torch.randn(num_images, CHANNELS, *shape, generator=generator) for shape in shapes]


def targets(size: tuple[int, int], boxes: list[list[float]], num_ignored: int = 0) -> Targets:
    ignore = torch.arange(len(boxes)) >= len(boxes) - num_ignored
    return Targets(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64), ignore, 0, size)


def losses_of(tood: TOOD, size: tuple[int, int], images: list[Targets], seed: int = 0) -> dict[str, Tensor]:
    return tood.losses(*tood(pyramid(size, len(images), seed), size), images)


# ---------------------------------------------------------------- phases


def test_the_first_third_of_a_run_is_the_first_phase(caplog: pytest.LogCaptureFixture) -> None:
    tood = stage()
    with caplog.at_level(logging.INFO, "engine"):
        phases = []
        for iteration in range(12):
            tood.follow(iteration, max_iter=12)
            phases.append(tood.is_initial)
    assert phases == [True] * 4 + [False] * 8
    assert caplog.messages == ["TOOD: task-aligned assignment from iteration 4 on, ATSS until then"]


@pytest.mark.parametrize(
    ("arguments", "first"),
    [({}, 30), ({"initial_share": 0.5}, 45), ({"initial_share": 0}, 0), ({"initial_share": 1}, 90)]
    + [({"initial_iterations": 7}, 7), ({"initial_iterations": 0}, 0)],
)
def test_where_the_second_phase_begins(arguments: dict[str, Any], first: int) -> None:
    tood = stage(**arguments)
    assert tood.is_initial == (first > 0)  # before anybody tells it
    assert tood.aligned.first(90) == first


def test_a_resumed_run_is_in_the_same_phase(caplog: pytest.LogCaptureFixture) -> None:
    tood = stage()
    with caplog.at_level(logging.INFO, "engine"):
        tood.follow(9, max_iter=12)
    assert not tood.is_initial and not caplog.messages  # the first run has logged it
    assert not any("phase" in name or "iter" in name.split(".")[-1] for name in tood.state_dict())


def test_the_phases_differ() -> None:
    size, tood = (128, 160), stage()
    images = [targets(size, [[10.0, 10, 90, 80]]), targets(size, [])]
    initial = losses_of(tood, size, images)
    tood.follow(9, 12)
    aligned = losses_of(tood, size, images)
    assert initial.keys() == aligned.keys() == {"loss_cls", "loss_reg"}
    assert initial["loss_cls"] != aligned["loss_cls"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor_type": "boxes"}, "anchor_type must be anchor_free or anchor_based, got 'boxes'"),
        ({"initial_share": 1.5}, "initial_share must be at least 0 and at most 1, got 1.5"),
        ({"initial_iterations": -1}, "initial_iterations must be a whole number of at least 0, got -1"),
        ({"topk": 0}, "topk must be a whole number of at least 1, got 0"),
        ({"num_convs": 0}, "num_convs must be a whole number of at least 1 and at most 100, got 0"),
        ({"anchor_size": 0}, "anchor_size must be above 0, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        stage(**arguments)


# ---------------------------------------------------------------- formulas


@settings(deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_the_logit_of_the_geometric_mean_never_saturates(a: float, b: float) -> None:
    x = torch.tensor([a, b], requires_grad=True)
    logit = logit_of_mean(x[0], x[1])
    logit.backward()
    assert logit.isfinite() and x.grad.isfinite().all() and (x.grad >= -1e-6).all()
    exact = torch.tensor([a, b], dtype=torch.float64).clamp(-300, 300)
    log_p = torch.nn.functional.logsigmoid(exact).sum() / 2
    if log_p < -1e-6 and max(abs(a), abs(b)) < 300:  # else float64 has no such logit either
        expected = log_p - torch.log(-torch.expm1(log_p))
        torch.testing.assert_close(logit.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_scores_near_one_are_still_corrected() -> None:
    for value in (20.0, 90.0, 1000.0):
        x = torch.tensor([value, value], requires_grad=True)
        torch.nn.functional.softplus(logit_of_mean(x[0], x[1])).backward()  # cross entropy of a negative
        torch.testing.assert_close(x.grad, torch.tensor([0.5, 0.5]))


def test_decomposition_is_a_convolution_of_scaled_maps() -> None:
    decomposition = TaskDecomposition(CHANNELS, num_layers=3)
    layers = torch.randn(2, 3 * CHANNELS, 4, 5)
    pooled = layers.mean((2, 3), keepdim=True)
    attention = decomposition.layer_attention(pooled).sigmoid()  # (2, 3, 1, 1)
    scaled = layers.unflatten(1, (3, CHANNELS)) * attention[:, :, None]
    expected = decomposition.norm(decomposition.reduction(scaled.flatten(1, 2))).relu()
    torch.testing.assert_close(decomposition(layers, pooled), expected, rtol=1e-4, atol=1e-5)


def test_sides_come_from_their_own_places() -> None:
    x1 = torch.tensor([[0.0, 1, 2], [10, 11, 12]])
    boxes = torch.stack([x1, x1 + 1, x1 + 50, x1 + 60])[None]  # (1, 4, 2, 3)
    offsets = torch.zeros(1, 8, 2, 3)
    torch.testing.assert_close(sample_boxes(boxes, offsets), boxes)
    offsets[:, 1] = 0.5  # dx of x1: halfway to the right neighbour, outside the map half of nothing
    offsets[:, 4] = 1.0  # dy of x2: the cell below
    moved = sample_boxes(boxes, offsets)
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([0.5, 1.5, 1.0]))
    torch.testing.assert_close(moved[0, 2, 0], x1[1] + 50)
    assert torch.equal(moved[0, 1::2, 0], boxes[0, 1::2, 0])  # y1 and y2
    assert torch.equal(moved[0, :, 1], boxes[0, :, 1])  # no row is below the last one, where x2 would be 0


def test_boxes_that_sampling_turns_inside_out_stay() -> None:
    boxes = torch.tensor([10.0, 10, 20, 20]).view(1, 4, 1, 1).repeat(1, 1, 1, 2)
    offsets = torch.zeros(1, 8, 1, 2)
    offsets[0, 5, 0, 0] = 100.0  # dx of x2 of the first cell: outside the map, 0
    offsets[0, 7, 0, 1] = 100.0  # dx of y2 of the second
    assert torch.equal(sample_boxes(boxes, offsets), boxes)
    offsets[0, 1::2, 0, 0] = 100.0  # all sides: an empty box is not inside out
    assert sample_boxes(boxes, offsets)[0, :, 0, 0].tolist() == [0.0] * 4


@pytest.mark.parametrize("offset", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_offsets_that_are_no_numbers_do_not_crash(offset: float) -> None:
    boxes = torch.rand(1, 4, 100, 160, requires_grad=True)
    offsets = torch.zeros(1, 8, 100, 160)
    offsets[0, :, 3] = offset
    moved = sample_boxes(boxes, offsets.requires_grad_())
    assert moved[0, :, 3].isnan().all() == (offset != offset)  # the loop reports a loss that is not a number
    kept = torch.arange(100) != 3
    assert torch.equal(moved[0][:, kept], boxes[0][:, kept])
    moved[0][:, kept].sum().backward()
    assert boxes.grad.isfinite().all() and offsets.grad.isfinite().all()


# ---------------------------------------------------------------- kinds of batches

BATCHES = {
    "an image without boxes": ([[10.0, 10, 50, 44]], []),
    "only images without boxes": ([], []),
    "a box given twice": ([[10.0, 10, 50, 44]] * 2, [[0.0, 0, 64, 64]]),
    "a box without area": ([[10.0, 10, 10, 10], [20.0, 5, 60, 60]], [[0.0, 0, 64, 0]]),
    "boxes that share their centre": ([[10.0, 10, 50, 50], [20.0, 20, 40, 40]], [[0.0, 0, 64, 64], [1.0, 1, 63, 63]]),
}


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("num_classes", [1, 80])
@pytest.mark.parametrize("is_initial", [True, False])
@pytest.mark.parametrize("name", BATCHES)
def test_losses_and_gradients_are_finite(name: str, is_initial: bool, num_classes: int, is_bf16: bool) -> None:
    size, tood = (64, 64), stage(num_classes, initial_share=float(is_initial))
    assert tood.is_initial == is_initial
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        losses = losses_of(tood, size, [targets(size, boxes) for boxes in BATCHES[name]])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in tood.parameters())
    assert losses["loss_cls"] > 0 and (losses["loss_reg"] > 0) == any(BATCHES[name])
    assert all(loss.dtype == torch.float32 for loss in losses.values())


@pytest.mark.parametrize("convention", [CONTINUOUS, INCLUSIVE])
@pytest.mark.parametrize("anchor_type", ["anchor_free", "anchor_based"])
@torch.no_grad()
def test_saturated_heads_stay_finite(anchor_type: str, convention: PixelConvention) -> None:
    size = (96, 64)
    tood = stage(anchor_type=anchor_type, convention=convention, initial_share=0.0)
    for parameter in tood.head.parameters():
        parameter.mul_(300)
    losses = losses_of(tood, size, [targets(size, [[10.0, 10, 50, 44]])])
    assert all(loss.isfinite() for loss in losses.values())
    for found in tood.candidates(*tood(pyramid(size), size), [size, (90, 60)]):
        assert found.boxes.isfinite().all() and found.scores.isfinite().all()


def test_ignored_boxes_teach_nothing_in_the_second_phase() -> None:
    size, tood = (128, 128), stage(initial_share=0.0)
    box, crowd = [8.0, 8, 40, 44], [60.0, 40, 128, 128]
    outputs, anchors = tood(pyramid(size, 1), size)
    outputs.logits.retain_grad()
    sum(tood.losses(outputs, anchors, [targets(size, [box, crowd], num_ignored=1)]).values()).backward()
    centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    sides = anchors.boxes[:, 2:] - anchors.boxes[:, :2]
    within = ((centers - sides / 2 >= torch.tensor([60.0, 40])) & (centers + sides / 2 <= 128)).all(1)
    assert within.any() and (outputs.logits.grad[0, within] == 0).all()
    assert (outputs.logits.grad[0].abs().sum(1) > 0).any()


@torch.no_grad()
def test_images_of_a_batch_do_not_matter_to_each_other() -> None:
    size, tood = (64, 96), stage(score_thresh=0.0)
    features = pyramid(size)
    both = tood(features, size)[0]
    for i in range(2):
        alone = tood([feature[i : i + 1] for feature in features], size)[0]
        torch.testing.assert_close(both.logits[i], alone.logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both.codes[i], alone.codes[0], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_boxes_are_clipped_to_the_unpadded_image() -> None:
    tood = stage(score_thresh=0.0)
    outputs, anchors = tood(pyramid((64, 64)), (64, 64))
    outputs.codes.copy_(torch.tensor([-20.0, -10, 90, 90]).expand_as(outputs.codes))
    (first, second) = tood.candidates(outputs, anchors, [(64, 64), (50, 40)])
    assert first.boxes.unique(dim=0).tolist() == [[0.0, 0, 64, 64]]
    assert second.boxes.unique(dim=0).tolist() == [[0.0, 0, 40, 50]]
    outputs.codes.copy_(torch.tensor([70.0, 70, 90, 90]).expand_as(outputs.codes))  # nothing is left of it
    assert [len(found) for found in tood.candidates(outputs, anchors, [(64, 64), (50, 40)])] == [0, 0]


def test_a_cascade_takes_its_proposals() -> None:
    settings = {"MODEL.DENSE.NAME": "TOOD", "MODEL.DENSE.ARGS": {"num_convs": 2}}
    model = build_model(small_config("cascade/cascade_R_50_FPN_1x.yaml", 3, **settings)).train()
    size = (64, 96)
    images, both = [torch.randn(3, *size)] * 2, [targets(size, [[10.0, 10, 60, 44]]), targets(size, [])]
    for iteration in (0, 9):
        model.rpn.follow(iteration, 12)
        losses = model(images, both)
        assert {"loss_cls", "loss_reg", "loss_classifier_stage2"} <= losses.keys()
        assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        assert len(model.eval()(images)) == 2


def test_scores_start_at_the_prior() -> None:
    tood = stage(prior=0.02)
    outputs, _ = tood([feature * 0 for feature in pyramid((64, 64))], (64, 64))
    torch.testing.assert_close(tood.class_scores(outputs), torch.full_like(outputs.logits, 0.02), rtol=1e-3, atol=0)
