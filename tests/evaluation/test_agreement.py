from __future__ import annotations

import pytest
import torch

from engine.evaluation.agreement import agreement
from engine.structures import Detections

SIZE = (50, 50)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long(), SIZE)


BOX = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        (found((*BOX, 0.5, 0)), found((*BOX, 0.5, 0)), 1.0),
        (found(), found(), 1.0),
        (found((*BOX, 0.5, 0)), found(), 0.0),
        (found((*BOX, 0.5, 0)), found((*BOX, 0.5, 1)), 0.0),  # another class
        (found((*BOX, 0.5, 0)), found((0.0, 0.0, 10.0, 9.0, 0.5, 0)), 1.0),  # IoU 0.9
        (found((*BOX, 0.5, 0)), found((0.0, 0.0, 10.0, 8.9, 0.5, 0)), 0.0),  # IoU 0.89
        (found((*BOX, 0.5, 0)), found((*BOX, 0.5, 0), (*BOX, 0.4, 0)), 2 / 3),  # one twin stays alone
    ],
)
def test_the_share_of_equal_detections(first: Detections, second: Detections, share: float) -> None:
    assert agreement([(first, second)]).share == pytest.approx(share)
    assert agreement([(second, first)]).share == pytest.approx(share)


def test_the_nearest_boxes_form_pairs_and_their_scores_are_compared() -> None:
    first = found((0.0, 0.0, 10.0, 9.5, 0.9, 0), (*BOX, 0.25, 0))
    second = found((*BOX, 0.5, 0), (0.0, 0.0, 10.0, 9.4, 0.5, 0))
    both = agreement([(first, second)])
    assert both.share == 1.0
    assert sorted(both.score_differences.tolist()) == pytest.approx([-0.4, 0.25])
    assert both.largest_difference == pytest.approx(0.4)
    assert both.mean_difference == pytest.approx(0.325)


def test_counts_add_up_over_images() -> None:
    same = found((*BOX, 0.5, 0))
    both = agreement([(same, same), (same, found()), (found(), found())])
    assert (both.num_first, both.num_second, both.share) == (2, 1, pytest.approx(2 / 3))
