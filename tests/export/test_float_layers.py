from __future__ import annotations

import pytest

from engine.export.float_layers import OperatorGraph, float_operators, is_within, unknown_modules

# image -> normalize -> stem; stem -> tower -> logits, boxes -> decode -> nms -> pool -> fc -> score;
# stem -> offset -> dcn -> tower
FOLLOWERS = {
    "image": ["normalize"],
    "normalize": ["stem"],
    "stem": ["offset", "dcn"],
    "offset": ["shift"],
    "shift": ["dcn"],
    "dcn": ["tower"],
    "tower": ["norm"],
    "norm": ["logits", "boxes"],
    "logits": ["decode"],
    "boxes": ["decode"],
    "decode": ["nms"],
    "nms": ["pool"],
    "pool": ["fc"],
    "fc": ["relu"],
    "relu": ["score"],
    "score": ["softmax"],
}
WEIGHTS = {
    "stem": "backbone.body.stem.conv1.weight",
    "offset": "backbone.body.layer2.conv2.offset.weight",
    "dcn": "backbone.body.layer2.conv2.conv.weight",
    "tower": "rpn.head.conv.weight",
    "logits": "rpn.head.cls_logits.weight",
    "boxes": "rpn.head.bbox_pred.weight",
    "fc": "roi_heads.box.fc6.weight",
    "score": "roi_heads.box.whatever.weight",
}


def test_what_predicts_and_what_is_computed_from_it_stays_in_float() -> None:
    kept = float_operators(OperatorGraph(FOLLOWERS, WEIGHTS)) - {"image", "normalize"}
    # `score` has no name that is known, but no layer follows it.
    assert kept == {"offset", "shift", "logits", "boxes", "decode", "nms", "pool", "score", "softmax"}


def test_what_comes_before_the_first_layer_stays() -> None:
    assert {"image", "normalize"} <= float_operators(OperatorGraph(FOLLOWERS, WEIGHTS))


def test_modules_that_are_named_stay_too() -> None:
    kept = float_operators(OperatorGraph(FOLLOWERS, WEIGHTS), ["rpn", "backbone.body.stem"])
    assert {"stem", "tower", "norm"} <= kept
    assert not {"dcn", "fc"} & kept


@pytest.mark.parametrize(
    ("weight", "modules", "expected"),
    [
        ("rpn.head.conv.weight", ["rpn"], True),
        ("rpn.head.conv.weight", ["rpn.head.conv"], True),
        ("rpn.head.conv2.weight", ["rpn.head.conv"], False),
        ("backbone.rpn.weight", ["rpn"], False),
        ("rpn.head.conv.weight", [], False),
    ],
)
def test_a_module_holds_the_layers_below_it(weight: str, modules: list[str], expected: bool) -> None:
    assert is_within(weight, modules) is expected


def test_names_without_a_layer_are_found() -> None:
    assert unknown_modules(["rpn.head", "neck", "backbone.body.stem"], WEIGHTS) == ["neck"]
