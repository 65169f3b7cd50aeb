from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.modeling.selection import Selection
from engine.structures import Detections, Targets, row


@dataclass
class Tracks(Detections):
    """Detections with one more field, as a project of its own might declare it."""

    ids: Tensor | None = row(dtype=torch.int64, is_optional=True)


def _tracks(ids: Tensor | None) -> Tracks:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 9], [20.0, 0, 30, 10]])
    return Tracks(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), (20, 40), ids)


def test_a_declared_field_follows_its_boxes() -> None:
    tracks = _tracks(torch.tensor([5, 6, 7]))
    assert tracks[tracks.scores < 0.85].ids.tolist() == [6, 7]
    assert Selection(nms_thresh=0.5)(tracks).ids.tolist() == [5, 7]  # through the suppression
    assert Tracks.cat([tracks, tracks[:1]]).ids.tolist() == [5, 6, 7, 5]
    assert tracks.to("cpu").resize((40, 80)).ids.tolist() == [5, 6, 7]
    assert Tracks.empty(size=(20, 40)).ids.dtype == torch.int64


def test_an_optional_field_may_be_missing() -> None:
    tracks = _tracks(None)
    assert tracks[:2].ids is None and Tracks.cat([tracks, tracks]).ids is None
    assert len(Tracks.cat([tracks, tracks])) == 6


def test_the_length_and_what_is_of_the_image() -> None:
    targets = Targets(torch.zeros(2, 4), torch.tensor([1, 0]), torch.tensor([False, True]), 7, (20, 40))
    crowd = targets[targets.ignore]
    assert len(targets) == 2 and len(crowd) == 1 and crowd.image_id == 7 and crowd.labels.tolist() == [0]
    joined = Targets.cat([targets, crowd])
    assert len(joined) == 3 and joined.ignore.tolist() == [False, True, True] and joined.size == (20, 40)
    empty = Targets.empty(image_id=1, size=(3, 4))
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.ignore.dtype == torch.bool
