from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.visualize.labels import MAX_COVERED_LAST, place_labels

SIZE = (100, 200)


def test_above_the_box_by_preference() -> None:
    assert place_labels([(50, 40, 90, 80)], [[(30, 10)]], SIZE) == [(0, 50, 30)]


def test_below_at_the_upper_edge_of_the_image_and_moved_in_at_the_right() -> None:
    assert place_labels([(50, 0, 90, 40)], [[(30, 10)]], SIZE) == [(0, 50, 40)]
    assert place_labels([(180, 40, 200, 60)], [[(30, 10)]], SIZE) == [(0, 170, 30)]


def test_a_box_as_large_as_the_image_has_its_label_inside() -> None:
    ((_, x, y),) = place_labels([(0, 0, 200, 100)], [[(30, 10)]], SIZE)
    assert (x, y) == (0, 0)


def test_the_same_box_many_times() -> None:
    options = [[(60, 12), (20, 12)]] * 30
    places = place_labels([(150, 140, 190, 180)] * 30, options, (400, 400))
    assert places[0] == (0, 150, 128)
    assert any(place is not None and place[0] == 1 for place in places)
    assert places[-1] is None


def test_labels_leave_most_of_the_image_free() -> None:
    frames = [(x, y, x + 8, y + 8) for y in range(0, 100, 10) for x in range(0, 200, 10)]
    places = place_labels(frames, [[(10, 10)]] * len(frames), SIZE)
    num_labels = sum(place is not None for place in places)
    assert num_labels * 10 * 10 <= 0.35 * SIZE[0] * SIZE[1]


def test_no_boxes_and_a_label_larger_than_the_image() -> None:
    assert place_labels([], [], SIZE) == []
    assert place_labels([(0, 0, 2, 2)], [[(30, 10)]], (5, 5)) == [(0, 0, 0)]


frame = st.tuples(st.integers(0, 190), st.integers(0, 90), st.integers(1, 100), st.integers(1, 80)).map(
    lambda v: (v[0], v[1], min(v[0] + v[2], 200), min(v[1] + v[3], 100))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(frame, max_size=12), st.integers(5, 60))
def test_inside_the_image_and_readable(frames: list, width: int) -> None:
    height = 9
    places = place_labels(frames, [[(width, height)]] * len(frames), SIZE)
    drawn = []
    for place in places:
        if place is None:
            continue
        _, x, y = place
        assert 0 <= x <= SIZE[1] - width and 0 <= y <= SIZE[0] - height
        hidden = sum(max(0, width - abs(x - other_x)) * max(0, height - abs(y - other_y)) for other_x, other_y in drawn)
        assert hidden <= MAX_COVERED_LAST * width * height
        drawn.append((x, y))
    assert not frames or places[0] is not None
