"""`engine.assembly.model`: what no test of a part covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import distributed
from engine.assembly.device import build_device, warn_without_gpu
from engine.assembly.model import build_backbone, build_model
from engine.config import get_cfg
from engine.errors import InputError
from engine.log import get_logger
from engine.modeling.backbone import Backbone
from engine.modeling.bodies import BODIES
from engine.modeling.bodies.resnet import Deformable
from engine.modeling.necks import NECKS


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def device(name: str) -> torch.device:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = name
    return build_device(cfg)


def test_device_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device("cuda:1") == device("cuda") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "sync", "processes", "expected"),
    [
        ("cpu", False, 2, []),
        ("cpu", True, 1, []),  # as on any device: there is nobody to average with
        ("cpu", True, 2, ["MODEL.USE_SYNCBN is off"]),
        ("cuda", False, 1, ["MODEL.DEVICE is cuda"]),
        ("cuda", True, 2, ["MODEL.DEVICE is cuda", "MODEL.USE_SYNCBN is off"]),
    ],
)
def test_what_a_cpu_cannot_do_is_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
    sync: bool,
    processes: int,
    expected: list[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.USE_SYNCBN = device, sync
    monkeypatch.setattr(get_logger(), "propagate", True)
    warn_without_gpu(cfg)
    assert len(caplog.messages) == len(expected)
    assert all(message.startswith(start) for message, start in zip(caplog.messages, expected, strict=True))


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_device_as_written(two_gpus: None, name: str) -> None:
    assert device(name) == torch.device(name)


def test_a_gpu_that_is_not_there(two_gpus: None) -> None:
    with pytest.raises(InputError, match=r"cuda:2, but this machine has 2 GPU\(s\): write cuda:1 or less"):
        device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_each_process_has_its_own_gpu(two_gpus: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # before the processes have met
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device(name) == torch.device("cuda:1")


def test_more_processes_than_gpus(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="no GPU for process 2 of this machine, which has 2 GPU"):
        distributed.init_process_group(torch.device("cuda"))


@pytest.mark.parametrize(("width", "is_safe"), [(15, False), (16, True)])
def test_thin_shortcuts_keep_torch_s_own_layout(width: int, is_safe: bool, said: pytest.LogCaptureFixture) -> None:
    """In the other one their gradients would be written past the end, see docs/decisions/channels_last.md."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.RPN_ONLY, cfg.MODEL.ATSS_ON, cfg.MODEL.ATSS.NUM_CLASSES = "cpu", True, True, 0
    cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = "R-18-FPN-RETINANET", width
    weight = build_model(cfg, ["hole"]).backbone.body.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == is_safe
    assert weight.is_contiguous() != is_safe
    named = ["backbone.body.layer2.0.downsample.0, which has 15" in text for text in said.messages]
    assert named == ([] if is_safe else [True])


class TwoMaps(nn.Module):
    """Takes a norm, a free argument and deformable stages, and cannot be frozen."""

    def __init__(self, norm: str, width: int = 8, deformable: Deformable | None = None) -> None:
        super().__init__()
        self.norm, self.deformable = norm, deformable
        self.out_channels, self.strides = (width, 2 * width), (8, 16)
        self.fine, self.coarse = nn.Conv2d(3, width, 8, 8), nn.Conv2d(width, 2 * width, 2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        return [fine, self.coarse(fine)]


class OldBody(nn.Module):
    """As bodies had to be before: no strides, both arguments needed."""

    out_channels = (4, 8, 16, 32)

    def __init__(self, norm_name: str, freeze_at: int) -> None:
        super().__init__()
        self.called_with = (norm_name, freeze_at)


class OneLevel(nn.Module):
    """The last map alone."""

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], scale: float = 1.0) -> None:
        super().__init__()
        self.out_channels, self.strides, self.scale = in_channels[-1], strides[-1:], scale

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [features[-1] * self.scale]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the parts above for one test."""
    for registry, part in ((BODIES, TwoMaps), (BODIES, OldBody), (NECKS, OneLevel)):
        monkeypatch.setitem(registry._obj_map, part.__name__, part)


def backbone_of(body: str, neck: str, *pairs: Any, **args: dict[str, Any]) -> Backbone:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.NECK.NAME = body, neck
    cfg.merge_from_list(list(pairs))
    for name, value in args.get("body_args", {}).items():
        cfg.MODEL.BACKBONE.ARGS[name] = value
    for name, value in args.get("neck_args", {}).items():
        cfg.MODEL.NECK.ARGS[name] = value
    return build_backbone(cfg)


def test_parts_of_ones_own_take_free_arguments(parts: None) -> None:
    backbone = backbone_of("TwoMaps", "OneLevel", body_args={"width": 6}, neck_args={"scale": 2.0})
    assert backbone.body.norm == "FrozenBN" and backbone.fpn.scale == 2.0
    assert (backbone.out_channels, backbone.strides, len(backbone.strides)) == (12, (16,), 1)
    assert [tuple(level.shape) for level in backbone(torch.randn(1, 3, 32, 64))] == [(1, 12, 2, 4)]


def test_arguments_take_precedence_over_other_keys(parts: None) -> None:
    backbone = backbone_of(
        *("R-18", "FPN", "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.NORM", "BN"),
        body_args={"stem_channels": 32, "norm_name": "GN", "width_per_group": 32},
        neck_args={"out_channels": 8},
    )
    assert backbone.body.stem.conv1.out_channels == 32 and type(backbone.body.stem.bn1).__name__ == "GroupNorm"
    assert backbone.out_channels == 8 and backbone.strides == (4, 8, 16, 32, 64)


def test_the_spelling_of_the_reference(parts: None) -> None:
    backbone = backbone_of("", "", "IMPORTS", "('json',)", "MODEL.BACKBONE.CONV_BODY", "OldBody-FPN-RETINANET")
    assert backbone.body.called_with == ("FrozenBN", 2)
    assert backbone.strides == (8, 16, 32, 64, 128) and backbone.out_channels == 1024


def test_names_take_precedence_over_the_spelling_of_the_reference(parts: None) -> None:
    backbone = backbone_of("TwoMaps", "", "MODEL.BACKBONE.CONV_BODY", "R-18-FPN")
    assert backbone.strides == (8, 16, 32)
    backbone = backbone_of("", "OneLevel", "MODEL.BACKBONE.CONV_BODY", "R-18-FPN")
    assert backbone.strides == (32,)


def test_a_body_that_cannot_be_frozen_says_so(parts: None, said: pytest.LogCaptureFixture) -> None:
    backbone_of("TwoMaps", "FPN", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0)
    assert not said.messages
    backbone_of("TwoMaps", "FPN")
    assert said.messages == [
        "MODEL.BACKBONE.FREEZE_CONV_BODY_AT is 2, but TwoMaps takes no argument freeze_at, so all of it is trained; "
        "set it to 0, or give the body the argument"
    ]


def test_a_misspelt_norm() -> None:
    start = r"^MODEL\.RESNETS\.NORM: nothing is registered as GM; there is BN, FrozenBN, GN"
    with pytest.raises(InputError, match=start):
        backbone_of("R-18", "FPN", "IMPORTS", "('json',)", "MODEL.RESNETS.NORM", "GM")


def test_a_dilated_body_has_other_strides() -> None:
    assert backbone_of("R-18", "FPN", "MODEL.RESNETS.RES5_DILATION", 2).strides == (4, 8, 16, 16, 32)


def test_deformable_stages_are_offered(parts: None) -> None:
    stages = ("MODEL.RESNETS.STAGE_WITH_DCN", "(False, True, True, True)")
    assert backbone_of("TwoMaps", "FPN", *stages).body.deformable == Deformable((False, True, True, True))
    with pytest.raises(InputError) as caught:
        backbone_of("OldBody", "FPN", *stages)
    assert str(caught.value) == (
        "MODEL.RESNETS.STAGE_WITH_DCN is (False, True, True, True), but OldBody takes no argument deformable; "
        "remove the key"
    )


@pytest.mark.parametrize(
    ("names", "args", "message"),
    [
        (
            ("R-50", "FPN"),
            {"body_args": {"with_per_group": 8}},
            "MODEL.BACKBONE.ARGS.with_per_group: R-50 takes no such argument; did you mean width_per_group?",
        ),
        (
            ("R-18", "FPN"),
            {"body_args": {"deformable": 8}},
            "MODEL.BACKBONE.ARGS.deformable: R-18 gets this argument from the engine; remove it",
        ),
        (
            ("TwoMaps", "FPN"),
            {"body_args": {"widht": 8}},
            "MODEL.BACKBONE.ARGS.widht: TwoMaps takes no such argument; did you mean width?",
        ),
        (
            ("TwoMaps", "FPN"),
            {"neck_args": {"levels": 3}},
            "MODEL.NECK.ARGS.levels: FPN takes no such argument; it takes out_channels, use_gn, use_relu, "
            "norm_name, conv",
        ),
    ],
)
def test_wrong_arguments(parts: None, names: tuple[str, str], args: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        backbone_of(*names, **args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("names", "start"),
    [
        (("R-51", "FPN"), "MODEL.BACKBONE.NAME: nothing is registered as R-51; did you mean R-5"),
        (("R-50", "FNP"), "MODEL.NECK.NAME: nothing is registered as FNP; did you mean FPN?"),
        (("R-50", ""), "MODEL.BACKBONE.CONV_BODY R-50-C4 cannot be built: write BODY-FPN-RETINANET or BODY-FPN"),
    ],
)
def test_wrong_names(names: tuple[str, str], start: str) -> None:
    with pytest.raises(InputError) as caught:
        backbone_of(*names)
    assert str(caught.value).startswith(start)


def test_a_body_that_contradicts_itself(parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OldBody, "strides", (4, 8), raising=False)
    with pytest.raises(InputError, match="OldBody has 4 out_channels, but 2 strides"):
        backbone_of("OldBody", "FPN")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ("NECK.NAME", "PAFPN", "NECK.ARGS", {"use_gn": "no"}),
            "NECK.ARGS: .*: use_gn must be True or False",
        ),
        (("NECK.NAME", "PAFPN", "NECK.ARGS", {"num_levels": 1000}), "num_levels must be a whole number .* at most 10"),
        (("NECK.NAME", "PAFPN", "NECK.ARGS", {"out_channels": 0}), "out_channels must be a whole number of at least 1"),
        (("NECK.NAME", "PAFPN", "NECK.ARGS", {"finest_stride": -8}), "finest_stride must be .* at least 1, got -8"),
        (("NECK.NAME", "FPN-RETINANET", "NECK.ARGS", {"num_top": -1}), "num_top must be a whole number of at least 0"),
        (("NECK.NAME", "FPN-RETINANET", "NECK.ARGS", {"conv": 3}), "conv must be a word, got 3"),
        (("NECK.NAME", "FPN", "NECK.ARGS", {"out_channels": 32.0}), "out_channels must be a whole number, got 32.0"),
        (("NECK.NAME", "DyHead", "NECK.ARGS", {"num_blocks": 0}), "num_blocks must be a whole number of at least 1"),
        (("NECK.NAME", "DyHead", "NECK.ARGS", {"pyramid_args": [1]}), "pyramid_args must map names of arguments"),
        (("BACKBONE.ARGS", {"freeze_at": -2}), "FREEZE_CONV_BODY_AT is -2, but the body has 5 parts"),
        (("BACKBONE.ARGS", {"in_channels": 5}), "ARGS.in_channels is 5, but the images have INPUT.CHANNELS 3"),
        (("BACKBONE.ARGS", {"drop_connect": 2}), "drop_connect must be at least 0 and at most 1, got 2"),
    ],
)
def test_arguments_that_no_part_can_have_are_one_line(keys: Sequence[Any], message: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.NECK.NAME = "EfficientNet-Lite0", "FPN"
    cfg.merge_from_list([f"MODEL.{each}" if i % 2 == 0 else each for i, each in enumerate(keys)])
    with pytest.raises(InputError, match=message) as caught:
        build_backbone(cfg)
    assert "\n" not in str(caught.value)
