from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.keys import KEYS as DECLARED
from engine.spelling import _similarity, did_you_mean, is_slip, nearest_key, nearest_words, normal_name

KEYS = list(DECLARED)


def _slips(name: str) -> set[str]:
    """Every name that one letter left out, or two neighbours swapped, makes of a name."""
    left_out = {name[:i] + name[i + 1 :] for i in range(len(name))}
    swapped = {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)}
    return (left_out | swapped) - {name}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_slip_is_answered_with_the_key(data):
    key = data.draw(st.sampled_from(KEYS))
    group, dot, name = key.rpartition(".")
    slip = data.draw(st.sampled_from(sorted(_slips(name))))
    mistyped = f"{group}{dot}{slip}"
    if mistyped in KEYS:
        return
    nearest = nearest_key(mistyped, KEYS)
    equally_near = nearest is not None and slip in _slips(nearest.rpartition(".")[2])
    assert nearest == key or equally_near  # G_IOU_THRESHOLD is FG_ or BG_


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(KEYS))
def test_a_known_key_is_its_own_nearest(key):
    assert nearest_key(key, KEYS) == key
    assert nearest_key(key.lower(), KEYS) == key


@settings(max_examples=200, deadline=None)
@given(st.text("ABC_", max_size=12), st.text("ABC_", max_size=12), st.sampled_from([0.3, 0.45, 0.6, 0.8]))
def test_what_is_passed_over_is_not_similar(a, b, least):
    exact = _similarity(a, b)
    assert _similarity(a, b, least) in ((exact,) if exact >= least else (exact, 0.0))


@pytest.mark.parametrize(
    "mistaken, meant",
    [
        ("TOPK", "MODEL.ATSS.TOPK"),
        ("MODEL.WEIGHTS", "MODEL.WEIGHT"),
        ("MODEL.ATSS.NMS_THRESH", "MODEL.ATSS.NMS_TH"),
        ("MODEL.RPN.NMS_TH", "MODEL.RPN.NMS_THRESH"),
        ("MODEL.ATSS.ANCHOR_STRIDE", "MODEL.ATSS.ANCHOR_STRIDES"),
        ("SOLVER.ENABLED", None),
        ("FOO", None),
    ],
)
def test_the_group_counts_more_than_the_exact_name(mistaken, meant):
    keys = [key for key in KEYS if not key.endswith("ENABLED")]
    assert nearest_key(mistaken, keys) == meant


def test_nearest_words():
    assert nearest_words("adamw", ["SGD", "Adam", "AdamW"]) == ["AdamW"]
    assert nearest_words("adamw", ["SGD", "Adam", "AdamW"], at_most=3) == ["AdamW", "Adam"]
    assert nearest_words("zebra", ["SGD", "Adam"]) == nearest_words("zebra", []) == []


def test_did_you_mean():
    assert did_you_mean("adamw", ["SGD", "Adam", "AdamW"], at_most=2) == "; did you mean AdamW or Adam?"
    assert did_you_mean("zebra", ["SGD", "Adam"]) == ""


@pytest.mark.parametrize("name", ["d\u00e9faut", "de\u0301faut", " d\u00e9faut", "de\u0301faut\u00a0\n"])
def test_names_that_look_alike_have_one_normal_form(name: str) -> None:
    assert normal_name(name) == "d\u00e9faut"


def test_names_that_differ_stay_different() -> None:
    names = ["Hole", "hole", "ho le", "hole.", "h\u043ele", "", "\ufb01ne", "fine"]
    assert [normal_name(name) for name in names] == names


def test_slips() -> None:
    slips = {"annotations": ["annotation", "Annotations", "anotations", "annotaitons"], "bbox": ["bbx", "box", "BBOX"]}
    slips |= {"file_name": ["file-name", "filename", "fileName"], "iscrowd": ["is_crowd", "crowd"], "width": ["widht"]}
    others = {"bbox": ["isbbox", "bboxes3d", "score"], "id": ["idx", "uid"], "category_id": ["category_name"]}
    others |= {"annotations": ["info", "licenses", "videos"], "height": ["weight_kg"], "file_name": ["path", "license"]}
    assert [word for meant, words in slips.items() for word in words if not is_slip(word, meant)] == []
    assert [word for meant, words in others.items() for word in words if is_slip(word, meant)] == []
