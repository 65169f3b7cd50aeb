"""Suppression and merging of boxes are the same on the GPU as on the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from engine.layers import nms as nms_rules
from engine.layers.nms import class_nms, keep_best
from engine.layers.voting import MERGERS
from engine.registry import lookup
from engine.structures import Detections, Targets
from tests.cuda.device import DEVICE, needs_device

pytestmark = needs_device


def boxes_of(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (P, 4) that overlap, scores of few values (P,), so that many are equal, labels (P,)."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 60, (count, 2), generator=generator).float()
    sides = torch.randint(1, 20, (count, 2), generator=generator).float()
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    return torch.cat([corners, corners + sides], dim=1), scores, torch.randint(0, 3, (count,), generator=generator)


def on_device(*tensors: Tensor) -> list[Tensor]:
    return [each.to(DEVICE) for each in tensors]


def distinct(scores: Tensor) -> Tensor:
    """No two are equal, so that the order of the input decides nothing."""
    return torch.linspace(1, 0.001, len(scores))[scores.argsort(stable=True).argsort()]


@pytest.mark.parametrize("count", [0, 1, 300, 5000])
@pytest.mark.parametrize("iou_thresh", [0.0, 0.5, 1.0])
def test_class_nms(count: int, iou_thresh: float) -> None:
    boxes, scores, labels = boxes_of(count)
    scores = distinct(scores)
    found = class_nms(*on_device(boxes, scores, labels), iou_thresh)
    assert found.device.type == DEVICE.type and torch.equal(found.cpu(), class_nms(boxes, scores, labels, iou_thresh))


def test_equal_scores_keep_the_same_number_of_boxes() -> None:
    boxes, scores, labels = boxes_of(2000)
    found = class_nms(*on_device(boxes, scores, labels), 0.5).cpu()
    assert (scores[found].diff() <= 0).all()
    again = class_nms(*on_device(boxes, scores, labels), 0.5).cpu()
    assert torch.equal(found, again)


def test_many_boxes_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores, labels = boxes_of(3000)
    scores = distinct(scores)
    together = class_nms(*on_device(boxes, scores, labels), 0.4)
    monkeypatch.setattr(nms_rules, "MANY_BOXES_GPU", 100)
    monkeypatch.setattr(nms_rules, "MANY_BOXES_CPU", 100)
    assert torch.equal(together, class_nms(*on_device(boxes, scores, labels), 0.4))


@pytest.mark.parametrize("limit", [0, 1, 40, 1000])
def test_keep_best(limit: int) -> None:
    _, scores, _ = boxes_of(300)
    assert torch.equal(keep_best(scores.to(DEVICE), limit).cpu(), keep_best(scores, limit))


@pytest.mark.parametrize("count", [0, 1, 400])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vote", {"iou_thresh": 0.6}),
        ("soft-vote", {"iou_thresh": 0.6, "score_thresh": 0.05}),
        ("nms", {"iou_thresh": 0.6}),
    ],
)
def test_mergers(name: str, arguments: dict[str, float], count: int) -> None:
    boxes, scores, labels = boxes_of(count)
    scores = distinct(scores)
    merge = partial(lookup(MERGERS, name, "TEST.BBOX_AUG.MERGE_TYPE"), **arguments)
    ours, theirs = merge(*on_device(boxes, scores, labels)), merge(boxes, scores, labels)
    assert all(each.device.type == DEVICE.type for each in ours)
    assert all(torch.equal(each.cpu(), other) for each, other in zip(ours, theirs, strict=True))


def test_rows_go_to_the_device_and_back() -> None:
    boxes, scores, labels = boxes_of(50)
    found = Detections(boxes, scores, labels, (80, 80)).to(DEVICE)
    assert found.boxes.device.type == DEVICE.type and torch.equal(found.to("cpu").boxes, boxes)
    targets = Targets(boxes, labels, labels == 1, 7, (80, 80)).to(DEVICE)
    assert targets.ignore.device.type == DEVICE.type and torch.equal(targets.to("cpu").ignore, labels == 1)
