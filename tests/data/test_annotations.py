from __future__ import annotations

import json

import numpy as np
import pytest

from engine.data.annotations import StringTable, flat_ids, group_by_image, unused_ids


def test_string_table_keeps_every_string() -> None:
    strings = ["", "a", "织物", "b" * 300, "", "ü.jpg"]
    table = StringTable(strings)
    assert len(table) == 6 and [table[i] for i in range(6)] == strings
    assert table[-2] == "" and list(table) == strings
    with pytest.raises(IndexError, match="6"):
        table[6]
    assert len(StringTable([])) == 0


@pytest.mark.parametrize("ids", [[3, -1, 2**63 - 1], [5, 2**127 + 1, -(10**50)], ["a", "ü", ""], []])
def test_flat_ids_give_back_what_json_can_store(ids: list) -> None:
    flat = flat_ids(ids)
    assert list(flat) == ids and json.loads(json.dumps(list(flat))) == ids
    assert not isinstance(flat, list)


def test_grouping_keeps_the_order_within_an_image() -> None:
    order, offsets = group_by_image(np.array([1, 0, 1, 3, 0]), 4)
    groups = [order[start:end].tolist() for start, end in zip(offsets, offsets[1:], strict=False)]
    assert groups == [[1, 4], [0, 2], [], [3]]
    order, offsets = group_by_image(np.zeros(0, np.int64), 2)
    assert (order.tolist(), offsets.tolist()) == ([], [0, 0, 0])


def test_unused_ids_are_of_the_same_type() -> None:
    assert unused_ids([3, 2**64], 2) == [2**64 + 1, 2**64 + 2] and unused_ids([], 1) == [1]
    assert unused_ids(["b", "2", "hole"], 3) == ["1", "3", "4"] and unused_ids(["b"], 0) == []
