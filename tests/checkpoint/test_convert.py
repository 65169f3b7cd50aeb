from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.checkpoint.convert import checkpoint_of, summary, unknown_names, with_class_names
from engine.checkpoint.weights import WeightFile
from engine.errors import InputError

THRESHOLDS = {"iou": 0.5, "classes": {"a": {"threshold": 0.1}, "b": {"threshold": 0.2}, "c": {"threshold": 0.3}}}


def weights(names: list[str] | None = None, num_classes: int = 3, **more: Any) -> WeightFile:
    """A dense head with two anchors per cell."""
    tensors = {
        "backbone.body.stem.conv1.weight": torch.zeros(8, 3, 7, 7),
        "backbone.fpn.fpn_inner2.weight": torch.zeros(4, 8, 1, 1),
        "rpn.head.cls_logits.bias": torch.zeros(2 * num_classes),
        "rpn.head.bbox_pred.bias": torch.zeros(2 * 4),
        **more.pop("tensors", {}),
    }
    return WeightFile(tensors, names, more.pop("thresholds", None), "x.pth", "engine", more)


def test_a_summary() -> None:
    odd: dict[str, Tensor] = {"neck.y": torch.zeros(1), "fc.bias": torch.zeros(1000)}
    file = weights(tensors=odd, **{"MODEL.DELTA_LIMIT": "both"})
    lines = summary(file).splitlines()
    assert lines[0] == "format: engine" and lines[1].split() == ["part", "tensors", "numbers"]
    assert {tuple(line.split()) for line in lines[3:9]} == {
        ("backbone.body", "1", "1,176"),
        ("backbone.fpn", "1", "32"),
        ("rpn.head", "2", "14"),
        ("neck", "1", "1"),
        ("fc", "1", "1,000"),
        ("all", "6", "2,223"),
    }
    assert lines[9:] == [
        "1 names are unknown, such as neck.y",
        "conventions, applied whenever the file is tested:",
        "  MODEL.DELTA_LIMIT both",
    ]
    assert unknown_names(file) == ["neck.y"] and "conventions" not in summary(weights())


def test_classes_are_renamed_with_their_thresholds() -> None:
    file = with_class_names(weights(["a", "b", "c"], thresholds=THRESHOLDS), ["b", "hole", "a"])
    content = checkpoint_of(file)
    assert content["class_names"] == ["b", "hole", "a"]
    assert content["thresholds"] == {
        "iou": 0.5,
        "classes": {"b": {"threshold": 0.1}, "hole": {"threshold": 0.2}, "a": {"threshold": 0.3}},
    }
    assert list(THRESHOLDS["classes"]) == ["a", "b", "c"]
    assert checkpoint_of(with_class_names(weights(), ["a", "b", "c"]))["thresholds"] is None


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d", "e", "f"], ["a"]])
def test_names_for_another_number_of_classes(names: list[str]) -> None:
    """Six rows could be 1, 2, 3 or 6 classes; the boxes show that there are two anchors."""
    with pytest.raises(InputError, match=rf"x.pth: {len(names)} names \('a'.*\) do not fit its heads"):
        with_class_names(weights(["a", "b", "c"]), names)


def test_a_name_twice() -> None:
    with pytest.raises(InputError, match="must differ, got 'a', 'b', 'a'"):
        with_class_names(weights(), ["a", "b", "a"])


def test_a_file_without_any_name_of_ours() -> None:
    file = WeightFile({"fc.weight": torch.zeros(1), "neck.y": torch.zeros(1)}, None, None, "x.pth", "unknown")
    with pytest.raises(InputError, match=r"x.pth: no tensor has a name of our models .*: it has fc.weight"):
        checkpoint_of(file)
