from __future__ import annotations

import torch

from engine.structures import INCLUSIVE, Detections


def _detections() -> Detections:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 2.0, 20.0, 8.0]])
    return Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), (10, 20))


def test_index_by_mask_and_slice() -> None:
    found = _detections()
    strong = found[found.scores > 0.5]
    assert len(found) == 2 and len(strong) == 1 and strong.labels.tolist() == [1] and strong.size == (10, 20)
    assert len(found[:0]) == 0 and found[:0].boxes.shape == (0, 4)


def test_resize_to_another_image_size() -> None:
    resized = _detections().resize((30, 40))
    assert resized.size == (30, 40)
    assert resized.boxes.tolist() == [[0, 0, 20, 30], [8, 6, 40, 24]]
    assert resized.scores.tolist() == _detections().scores.tolist()


def test_resize_clips() -> None:
    found = Detections(
        torch.tensor([[-5.0, 0.0, 99.0, 9.0]]), torch.ones(1), torch.zeros(1, dtype=torch.int64), (10, 20)
    )
    assert found.resize((10, 20)).boxes.tolist() == [[0, 0, 20, 9]]


def test_resize_in_the_inclusive_convention() -> None:
    """Pixels 0..9 of 10 become 0..18 of 20, as the reference computes."""
    resized = _detections().resize((20, 40), INCLUSIVE)
    assert resized.boxes[0].tolist() == [0, 0, 19, 19]
