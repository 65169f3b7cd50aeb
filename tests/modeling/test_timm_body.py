"""Bodies `timm/NAME` equal timm's own features_only models, and read its files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.assembly.model import build_backbone
from engine.assembly.weights import load_initial_weights
from engine.checkpoint.convert import checkpoint_of
from engine.checkpoint.io import FORMAT, save
from engine.checkpoint.weights import load_weights, read_weights, read_weights_for
from engine.config import get_cfg
from engine.errors import InputError
from engine.modeling.backbone import Backbone
from engine.modeling.bodies import BODIES

timm = pytest.importorskip("timm", reason="timm is not installed (pip install timm)")

SWIN = "swin_tiny_patch4_window7_224"
NAMES = ("resnet10t", "mobilenetv4_conv_small", "efficientnet_b0", "convnextv2_atto", SWIN, "hrnet_w18_small")
QUICK = ("resnet10t", "convnextv2_atto")
CASES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.nightly) for name in NAMES]


def in_backbone(body: nn.Module) -> nn.Module:
    model = nn.Module()
    model.backbone = Backbone(body, nn.Identity())
    return model


def backbone_of(name: str, *pairs: Any, key: str = "MODEL.BACKBONE.NAME") -> Backbone:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.NECK.NAME", "FPN", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0, key, name, *pairs])
    return build_backbone(cfg)


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_timm_gives_its_maps(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = timm.create_model(name)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(0)
    sizes = {"strict_img_size": False} if name == SWIN else {}
    original = timm.create_model(name, features_only=True, **sizes).eval()
    # Where timm takes networks apart the names change, but the seed draws the same weights; elsewhere the names agree.
    original.load_state_dict(classifier.state_dict(), strict=False)
    model = in_backbone(BODIES.get("timm")(name))
    report = load_weights(model, tmp_path / "weights.pth")
    assert report.format == "timm" and report.backbone_only and not report.missing and not report.unexpected
    body, images = model.backbone.body.eval(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = [
            each.permute(0, 3, 1, 2) if name == SWIN else each
            for each, stride in zip(original(images), original.feature_info.reduction(), strict=True)
            if stride >= 4
        ]
        found = body(images)
    assert [(each.shape[1], 64 // each.shape[2]) for each in found] == list(
        zip(body.out_channels, body.strides, strict=True)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "num_parts"),
    [("resnet10t", 5), ("convnextv2_atto", 5), *([("efficientnet_b0", 6), ("mobilenetv4_conv_small", 5)])],
)
def test_parts(name: str, num_parts: int) -> None:
    body = BODIES.get("timm")(name, norm_name="BN", freeze_at=1)
    parts = body.layer_groups()
    assert len(parts) == num_parts
    assert {id(p) for part in parts for p in part.parameters()} == {id(p) for p in body.parameters()}
    assert [all(p.requires_grad for p in part.parameters()) for part in parts] == [False] + [True] * (num_parts - 1)
    before = [value.clone() for value in parts[0].buffers()]
    body.train()(torch.randn(2, 3, 64, 64))
    assert all(map(torch.equal, before, parts[0].buffers()))


def test_by_configuration() -> None:
    assert backbone_of("timm/resnet10t-FPN", key="MODEL.BACKBONE.CONV_BODY").strides == (4, 8, 16, 32, 64)
    grey = ("INPUT.CHANNELS", 1, "INPUT.PIXEL_MEAN", "(100.0,)", "INPUT.PIXEL_STD", "(1.0,)")
    body = backbone_of("timm/resnet10t", "MODEL.BACKBONE.ARGS", "{drop_path_rate: 0.1}", *grey).body
    assert len(body(torch.randn(1, 1, 64, 64))) == 4


@pytest.mark.parametrize(
    ("name", "pairs", "message"),
    [
        ("timm/resnet18z", (), rf"^timm/resnet18z: timm {timm.__version__} has no such model; did you mean resnet18"),
        ("timm/resnet10t.in22k", (), r"^timm/resnet10t\.in22k: timm \S+ has no such weights; it has c3_in1k$"),
        ("timm/", (), "^MODEL.BACKBONE.NAME: nothing is registered as timm/"),
        ("timm/levit_128s", (), "^timm/levit_128s cannot be a body: it only takes images of its own size"),
        ("timm/resnet10t", ("MODEL.BACKBONE.ARGS", "{drop_rte: 1}"), "unexpected keyword argument 'drop_rte'"),
        (
            "timm/efficientnet_b0",
            ("MODEL.RESNETS.NORM", "GN"),
            "norms that also activate .BatchNormAct2d.; write BN or",
        ),
        (
            "timm/hrnet_w18_small",
            ("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 1),
            "FREEZE_CONV_BODY_AT is 1, but the parts of timm/hrnet_w18_small are not known; set it to 0$",
        ),
        (
            "timm/resnet10t",
            ("MODEL.RESNETS.STAGE_WITH_DCN", "(False, False, True, True)"),
            "STAGE_WITH_DCN is .False, False, True, True., but timm/resnet10t takes no argument deformable; remove",
        ),
    ],
)
def test_mistakes(name: str, pairs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        backbone_of(name, *pairs)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"^timm/resnet18 needs the package timm \(.*\): pip install timm$"):
        backbone_of("timm/resnet18")
    with pytest.raises(InputError, match=r"^timm://resnet18 needs the package timm .*pip install timm$"):
        read_weights("timm://resnet18")


def test_its_images_become_conventions(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.pth")
    cfg = get_cfg()
    cfg.MODEL.WEIGHT = str(tmp_path / "weights.pth")
    model = in_backbone(BODIES.get("timm")("resnet10t"))
    model.class_names = []
    load_initial_weights(cfg, model)
    (warning,) = [each for each in said.messages if "was trained with" in each]
    assert "INPUT.TO_BGR255 False" in warning and "INPUT.PIXEL_MEAN (0.485, 0.456, 0.406)" in warning
    assert read_weights_for(model, cfg.MODEL.WEIGHT).conventions["INPUT.PIXEL_STD"] == (0.229, 0.224, 0.225)


def test_converted_files_load_too(tmp_path: Path) -> None:
    torch.save(timm.create_model("convnextv2_atto").state_dict(), tmp_path / "weights.pth")
    save(tmp_path / "converted.pth", checkpoint_of(read_weights(tmp_path / "weights.pth", "timm")))
    model = in_backbone(BODIES.get("timm")("convnextv2_atto"))
    for path in ("converted.pth", "own.pth"):
        report = load_weights(model, tmp_path / path)
        assert report.format == "engine" and report.backbone_only and not report.missing
        save(tmp_path / "own.pth", {"format": FORMAT, "model": model.state_dict()})


def test_another_network_does_not_match(tmp_path: Path) -> None:
    torch.save(timm.create_model("convnextv2_atto").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"^nothing in .*weights.pth matches this model"):
        load_weights(in_backbone(BODIES.get("timm")("resnet10t")), tmp_path / "weights.pth")


def test_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`timm://NAME` is read from the cache of the hub, without its client if the file is there."""
    import huggingface_hub
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), file)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: str(file))
    report = load_weights(in_backbone(BODIES.get("timm")("resnet10t")), "timm://resnet10t.c3_in1k")
    assert report.format == "timm" and report.backbone_only
    weights = read_weights("timm://resnet10t")
    assert weights.conventions["INPUT.PIXEL_MEAN"] == timm.get_pretrained_cfg("resnet10t").mean


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: None)
    monkeypatch.setattr("engine.checkpoint.timm_hub._why_unreachable", lambda url: "no route")
    with pytest.raises(InputError, match=r"^timm://resnet10t: cannot download \S+ \(no route\); fetch it on another"):
        read_weights("timm://resnet10t")
    with pytest.raises(InputError, match=r"^timm://resnet10x: timm \S+ has no such model"):
        read_weights("timm://resnet10x")
