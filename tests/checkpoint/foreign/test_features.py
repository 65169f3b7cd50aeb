"""A translated body computes the same as the original, with any normalisation.

In float64, so that a forgotten epsilon cannot hide in rounding.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine.checkpoint import load_weights
from engine.modeling.bodies.resnet import Deformable, ResNet

MODELS = {
    "resnet18": {"depth": 18},
    "resnet50": {"depth": 50},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "width_per_group": 4},
}


class Detector(nn.Module):
    """Just the path to the body, and a head that no ImageNet file has."""

    def __init__(self, **body: object) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = ResNet(**body)
        self.rpn = nn.Module()
        self.rpn.head = nn.Conv2d(1, 1, 1)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_statistics(model: nn.Module) -> nn.Module:
    """Random weights and statistics as after training, some variances tiny, so that the epsilon matters."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.rand(module.num_features, generator=generator) * 0.5 + 0.25
            module.bias.data = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.01
            module.running_var[0] = 1e-3
    return model.double().eval()


@torch.no_grad()
def stages(model: nn.Module, image: Tensor) -> list[Tensor]:
    """C2 ... C5 of a torchvision ResNet."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
    features = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        features.append(x)
    return features


@pytest.mark.parametrize("norm_name", ["FrozenBN", "BN"])
@pytest.mark.parametrize("name", MODELS)
def test_torchvision_body(tmp_path: Path, image: Tensor, name: str, norm_name: str) -> None:
    theirs = with_statistics(getattr(torchvision.models, name)(num_classes=2))
    torch.save(theirs.state_dict(), tmp_path / "imagenet.pth")
    model = Detector(**MODELS[name], norm_name=norm_name, stride_in_1x1=False).double().eval()
    report = load_weights(model, tmp_path / "imagenet.pth")
    assert report.format == "torchvision" and report.backbone_only and not report.notes
    with torch.no_grad():
        features = model.backbone.body(image)
    for one, other in zip(features, stages(theirs, image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * other.abs().max().item())


def test_wrong_stride_is_noted(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet50(num_classes=2).state_dict(), tmp_path / "imagenet.pth")
    report = load_weights(Detector(depth=50, stride_in_1x1=True), tmp_path / "imagenet.pth")
    assert "STRIDE_IN_1X1 False" in report.notes[0]


@pytest.mark.parametrize("norm_name", ["FrozenBN", "BN"])
def test_caffe2_body(tmp_path: Path, image: Tensor, norm_name: str) -> None:
    """Blobs made of a torchvision ResNet-50 whose normalisation was folded into scale and bias."""
    theirs = with_statistics(torchvision.models.resnet50(num_classes=2))
    blobs = {name: tensor.numpy() for name, tensor in blobs_of(theirs).items()}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    model = Detector(depth=50, norm_name=norm_name, stride_in_1x1=False).double().eval()
    report = load_weights(model, tmp_path / "R-50.pkl")
    assert report.format == "caffe2" and report.backbone_only
    with torch.no_grad():
        features = model.backbone.body(image)
    for one, other in zip(features, stages(theirs, image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * other.abs().max().item())


@torch.no_grad()
def blobs_of(model: nn.Module) -> dict[str, Tensor]:
    blobs = {"fc1000_w": model.fc.weight.detach(), "fc1000_b": model.fc.bias.detach()}
    for name, module in model.named_modules():
        stage, *rest = name.removeprefix("layer").split(".")
        if len(rest) == 2:
            branch = (
                f"res{int(stage) + 1}_{rest[0]}_branch2{'abc'[int(rest[1][-1]) - 1]}" if rest[1][-1] in "123" else ""
            )
        elif len(rest) == 3:
            branch = f"res{int(stage) + 1}_{rest[0]}_branch1"
        else:
            branch = "conv1" if isinstance(module, nn.Conv2d) else "res_conv1"
        if isinstance(module, nn.Conv2d):
            blobs[f"{branch}_w"] = module.weight.detach()
            blobs[f"{branch}_w_momentum"] = torch.zeros(1)
        elif isinstance(module, nn.BatchNorm2d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            blobs[f"{branch}_bn_s"] = scale
            blobs[f"{branch}_bn_b"] = module.bias - module.running_mean * scale
    return blobs


def test_trained_norm_into_frozen_norm_and_back(tmp_path: Path, image: Tensor) -> None:
    trained = with_statistics(Detector(depth=18, norm_name="BN"))
    torch.save({"model": trained.state_dict(), "format": "engine-1"}, tmp_path / "trained.pth")
    frozen = Detector(depth=18, norm_name="FrozenBN").double()
    assert load_weights(frozen, tmp_path / "trained.pth").ok
    torch.save({"model": frozen.state_dict(), "format": "engine-1"}, tmp_path / "frozen.pth")
    again = Detector(depth=18, norm_name="BN").double().eval()
    assert load_weights(again, tmp_path / "frozen.pth").ok
    same = Detector(depth=18, norm_name="BN").double().eval()
    load_weights(same, tmp_path / "trained.pth")
    with torch.no_grad():
        expected = trained.backbone.body(image)[-1]
        for model in (frozen, again):
            result = model.backbone.body(image)[-1]
            torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    for name, value in trained.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name


def test_offsets_of_a_deformable_body_are_new_but_expected(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), tmp_path / "imagenet.pth")
    deformable = Deformable((False, False, False, True), modulated=True)
    model = Detector(depth=18, stride_in_1x1=False, deformable=deformable)
    report = load_weights(model, tmp_path / "imagenet.pth")
    assert report.backbone_only and report.summary().endswith("new: deformable offsets, rpn.head")
    assert "backbone.body.layer4.0.conv2.conv.weight" in report.matched
