"""Bodies from torchvision's classifiers equal torchvision's own intermediate maps, and read its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from engine.checkpoint.weights import load_weights, read_weights
from engine.errors import InputError
from engine.layers.depthwise import DepthwiseConv2d
from engine.layers.norm import SyncBatchNorm
from engine.modeling.backbone import Backbone
from engine.modeling.bodies import BODIES
from engine.modeling.bodies.torchvision_bodies import TORCHVISION_BODIES

QUICK = ("MobileNetV3-Small",)
CASES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.nightly) for name in TORCHVISION_BODIES]
RGB = {
    "INPUT.TO_BGR255": False,
    "INPUT.PIXEL_MEAN": (0.485, 0.456, 0.406),
    "INPUT.PIXEL_STD": (0.229, 0.224, 0.225),
}


def in_backbone(name: str, **arguments: object) -> Backbone:
    """As in a detector, whose names the weights are translated to."""
    model = nn.Module()
    model.backbone = Backbone(BODIES.get(name)(**arguments), nn.Identity())
    return model


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_torchvision_gives_its_maps(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cut = TORCHVISION_BODIES[name]
    network = models.get_model(cut.network, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)  # another eps than 1e-3 changes a map by 5e-4 per layer
            module.running_mean.normal_(std=0.01)
    network.eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = in_backbone(name)
    report = load_weights(model, tmp_path / "weights.pth")
    assert not report.missing and not report.unexpected and not report.reshaped and report.backbone_only
    file = read_weights(tmp_path / "weights.pth")
    assert file.format == "torchvision_features" and file.conventions == RGB
    nodes = [f"features.{end - 1}" for end in cut.ends[1:]]
    images = torch.randn(2, 3, 72, 104)
    body = model.backbone.body.eval()
    with torch.no_grad():
        expected = create_feature_extractor(network, nodes)(images).values()
        found = body(images)
    for theirs, ours, channels in zip(expected, found, body.out_channels, strict=True):
        theirs = theirs.permute(0, 3, 1, 2) if cut.is_channels_last else theirs
        assert ours.shape[1] == channels
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_parts_and_small_images(name: str) -> None:
    body = BODIES.get(name)(norm_name="BN", freeze_at=2)
    parts = body.layer_groups()
    assert (
        len(parts) == 5
        and [any(p.requires_grad for p in part.parameters()) for part in parts] == [False] * 2 + [True] * 3
    )
    covered = {id(p) for part in parts for p in part.parameters()}
    assert covered == {id(p) for p in body.parameters()}
    maps = body.train()(torch.randn(2, 3, 64, 64))
    assert [tuple(each.shape[2:]) for each in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_other_channels() -> None:
    body = BODIES.get("MobileNetV3-Small")(in_channels=1).eval()
    assert len(body(torch.randn(1, 1, 64, 64))) == 4


def test_depthwise_convolutions_are_ours() -> None:
    body = BODIES.get("MobileNetV3-Small")()
    grouped = [each for each in body.modules() if isinstance(each, nn.Conv2d) and each.groups > 1]
    assert len(grouped) == 11 and {type(each) for each in grouped} == {DepthwiseConv2d}
    assert sum(each.stride == (2, 2) and each.kernel_size == (5, 5) for each in grouped) == 2


def norms_of(body: nn.Module) -> list[nn.Module]:
    return [each for each in body.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm | nn.GroupNorm)]


def test_norms_by_name() -> None:
    body = BODIES.get("MobileNetV3-Small")
    for name, kind in (("BN", nn.BatchNorm2d), ("FrozenBN", nn.BatchNorm2d), ("SyncBN", SyncBatchNorm)):
        norms = norms_of(body(norm_name=name).train())
        assert {type(each) for each in norms} == {kind} and {each.eps for each in norms} == {1e-3}
        assert {each.training for each in norms} == {name != "FrozenBN"}
        assert {each.weight.requires_grad for each in norms} == {name != "FrozenBN"}
    with pytest.raises(InputError, match="^norm GN: 16 channels are not divisible into 32 groups"):
        body(norm_name="GN")


def test_a_body_without_batch_norms_says_so(said: pytest.LogCaptureFixture) -> None:
    BODIES.get("ConvNeXt-Tiny")(norm_name="FrozenBN")  # none of its batch norms moves
    assert not said.messages
    body = BODIES.get("ConvNeXt-Tiny")(norm_name="BN")
    assert said.messages == ["ConvNeXt-Tiny has no batch norms, so MODEL.RESNETS.NORM BN changes nothing"]
    assert {each.eps for each in body.modules() if isinstance(each, nn.LayerNorm)} == {1e-6}
