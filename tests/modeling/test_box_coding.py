from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.modeling.box_coding import DeltaCoder, DistanceCoder

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
anchor_lists = st.lists(
    st.tuples(
        st.floats(-500, 500, width=32),
        st.floats(-500, 500, width=32),
        st.floats(8, 500, width=32),
        st.floats(8, 500, width=32),
    ),
    min_size=1,
    max_size=8,
)


def as_boxes(rows: list[tuple[float, ...]]) -> torch.Tensor:
    table = torch.tensor(rows)
    return torch.cat([table[:, :2], table[:, :2] + table[:, 2:]], dim=1)


def test_deltas_by_hand() -> None:
    # Twice as wide, shifted by half the anchor's width: dx = 0.5, dw = log 2.
    anchors, boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 20.0, 10.0]])
    deltas = DeltaCoder(WEIGHTS).encode(boxes, anchors)
    torch.testing.assert_close(deltas, torch.tensor([[5.0, 0.0, 5 * 0.6931472, 0.0]]))


def test_distances_by_hand() -> None:
    anchors, boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.tensor([[16.0, 24.0, 40.0, 48.0]])
    assert DistanceCoder(unit=8.0).encode(boxes, anchors).tolist() == [[2.0, 1.0, 1.0, 2.0]]
    assert DistanceCoder(unit=8.0, inset=0.5).encode(boxes, anchors).tolist() == [[1.9375, 0.9375, 0.9375, 1.9375]]


@given(anchor_lists, anchor_lists)
def test_decode_inverts_encode(anchors: list, boxes: list) -> None:
    n = min(len(anchors), len(boxes))
    a, b = as_boxes(anchors[:n]), as_boxes(boxes[:n])
    for coder in (DeltaCoder(WEIGHTS), DistanceCoder(8.0, inset=0.0), DistanceCoder(8.0, inset=0.5)):
        torch.testing.assert_close(coder.decode(coder.encode(b, a), a), b, rtol=1e-4, atol=0.05)


def test_huge_deltas_do_not_overflow() -> None:
    boxes = DeltaCoder(WEIGHTS).decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    torch.testing.assert_close(boxes, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))
