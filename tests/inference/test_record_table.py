"""Records in Parquet files are those of the JSON lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.inference.record_table import records_in, to_table

pq = pytest.importorskip("pyarrow.parquet")

numbers = st.floats(0, 5000, width=32).map(lambda value: float(str(value)))
detections = st.lists(
    st.fixed_dictionaries(
        {
            "class": st.text(st.characters(codec="utf-8")),
            "score": numbers,
            "box": st.lists(numbers, min_size=4, max_size=4),
        }
    ),
    max_size=3,
)
names = st.text(st.characters(codec="utf-8"), min_size=1)
found = st.fixed_dictionaries(
    {"image": names, "size": st.lists(st.integers(1, 99), min_size=2, max_size=2), "detections": detections}
)
unreadable = st.fixed_dictionaries({"image": names, "error": names})


@settings(max_examples=20)
@given(st.lists(found | unreadable, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_what_is_written_in_any_order_is_read_in_that_of_the_input(tmp_path_factory, records, random):
    folder = tmp_path_factory.mktemp("parquet")
    order = list(range(len(records)))
    random.shuffle(order)
    half = len(order) // 2
    for number, part in enumerate((order[:half], order[half:])):
        pq.write_table(to_table(part, [records[k] for k in part]), folder / f"{number}.parquet")
    read = list(records_in(folder, len(records)))
    assert read == records


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 1], [0, 1, 3]], ids=["missing", "twice", "unknown"])
def test_rows_that_are_not_those_of_the_input_are_refused(tmp_path: Path, indices: list[int]) -> None:
    pq.write_table(to_table(indices, [{"image": "a", "error": "b"}] * len(indices)), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="rows that are not those of the 3 images"):
        list(records_in(tmp_path, 3))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    pq.write_table(to_table([0], [{"image": "a\udcff.png", "error": "x"}]), tmp_path / "a.parquet")
    assert next(records_in(tmp_path, 1))["image"] == "a\\udcff.png"
