"""The registry of weights formats: the order of recognition, and formats of the user's own that are faulty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import read_weights
from engine.checkpoint.foreign import FORMATS, format_of
from engine.errors import InputError

ONE = torch.ones(1)


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """Registers a format with the attributes given, for a test."""
    names: list[str] = []

    def add(name: str, **attributes: Any) -> None:
        FORMATS.register(name)(type(name, (), attributes))
        names.append(name)

    yield add
    for name in names:
        FORMATS._obj_map.pop(name)


@pytest.mark.parametrize(
    ("names", "format_name"),
    [
        (["res2_0_branch2a_w"], "caffe2"),
        (["conv1.weight", "layer1.0.conv1.weight"], "torchvision"),
        (["_conv_stem.weight", "_blocks.0._depthwise_conv.weight"], "efficientnet_lite"),
        (["backbone.fpn.inner_blocks.0.0.weight", "rpn.head.x"], "torchvision_detection"),
        (["backbone.bottom_up.stem.conv1.weight"], "detectron2"),
        (["neck.lateral_convs.0.conv.weight"], "mmdetection"),
        (["module.backbone.body.stem.conv1.weight"], "atss"),
        (["backbone.body.stem.conv1.weight", "rpn.anchor_generator.cell_anchors.0"], "atss"),
        (["backbone.body.stem.conv1.weight"], "plain"),
        (["_orig_mod.backbone.body.blocks.0.weight"], "plain"),
        (["roi_heads.box.predictor.cls_score.weight"], "plain"),
        (["encoder.weight"], "unknown"),
    ],
)
def test_recognition(names: list[str], format_name: str) -> None:
    assert format_of(dict.fromkeys(names, ONE)) == format_name


def test_a_format_of_the_users_own_comes_before_the_names_of_ours(register: Callable[..., None]) -> None:
    register("mine", SIGNATURE=(r"backbone\.body\.blocks\.",), translate=dict)
    assert format_of({"backbone.body.blocks.0.weight": ONE}) == "mine"
    assert format_of({"backbone.body.blocks.0.weight": ONE, "neck.lateral_convs.0.conv.weight": ONE}) == "mmdetection"
    assert format_of({"backbone.body.stem.weight": ONE}) == "plain"


def test_what_a_format_states_arrives(tmp_path: Path, register: Callable[..., None]) -> None:
    register(
        "mine",
        SIGNATURE=("net\\.",),
        translate=lambda tensors: {name.replace("net.", "backbone.body."): each for name, each in tensors.items()},
        conventions=lambda tensors: {"INPUT.TO_BGR255": False},
        norm_eps=lambda tensors: {"backbone.body.bn": 1e-6},
        class_names=lambda meta: ("hole", "stain") if meta else None,
    )
    torch.save({"state_dict": {"net.bn.running_var": ONE}, "meta": {"a": 1}}, tmp_path / "m.pth")
    file = read_weights(tmp_path / "m.pth")
    assert (file.format, list(file.tensors)) == ("mine", ["backbone.body.bn.running_var"])
    assert file.conventions == {"INPUT.TO_BGR255": False} and file.norm_eps == {"backbone.body.bn": 1e-6}
    assert file.class_names == ["hole", "stain"]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"translate": dict}, "weights format mine: has no SIGNATURE; see docs/extending.md"),
        ({"SIGNATURE": "net"}, "weights format mine: has no translate; see docs/extending.md"),
        ({"SIGNATURE": "(", "translate": dict}, "weights format mine: its SIGNATURE must be regular expressions, not "),
        ({"SIGNATURE": 3, "translate": dict}, "weights format mine: its SIGNATURE must be regular expressions, not 3"),
        ({"SIGNATURE": "net", "translate": list}, "weights format mine: translate must return tensors by name, not "),
        ({"SIGNATURE": "net", "translate": lambda t: t["fc"]}, "cannot be read as weights of mine .it has no fc"),
        ({"SIGNATURE": "net", "translate": lambda t: t.no}, "cannot be read as weights of mine .*no attribute 'no'"),
        (
            {"SIGNATURE": "net", "translate": dict, "NORM_EPS": "x"},
            "cannot be read as weights of mine .*could not conv",
        ),
    ],
)
def test_a_faulty_format_is_one_line(
    tmp_path: Path, register: Callable[..., None], attributes: dict[str, Any], message: str
) -> None:
    register("mine", **attributes)
    torch.save({"net.weight": ONE}, tmp_path / "m.pth")
    with pytest.raises(InputError, match=rf"^(?!.*\n).*{message}"):
        read_weights(tmp_path / "m.pth")
