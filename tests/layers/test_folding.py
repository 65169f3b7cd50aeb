from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.layers.deform_conv import DeformConv2d
from engine.layers.folding import FOLDABLE_NORMS, fold_norms
from engine.layers.norm import norm
from engine.modeling.bodies import BODIES
from engine.modeling.bodies.resnet import Deformable

QUICK = {"R-18", "R-50", "EfficientNet-Lite0", "MobileNetV3-Small"}
"""Others repeat their blocks, or have layer norms only."""
ALL_BODIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.nightly) for name in BODIES.names() if "-" in name
]


def randomized(model: nn.Module) -> nn.Module:
    """With norms that are no identity, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, FOLDABLE_NORMS) and module.running_mean is not None:
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=generator) / 10)
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            if module.weight is not None:
                module.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
                module.bias.data.copy_(torch.randn(shape, generator=generator) / 10)
    return model


def count(model: nn.Module) -> int:
    return sum(isinstance(module, FOLDABLE_NORMS) for module in model.modules())


def assert_equal(outputs: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert (outputs - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_merged_pair_by_hand() -> None:
    """y = 2 x + 1, then (y - 3) / sqrt(3 + 1) * 4 + 5 = 4 x + 1."""
    conv, layer = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    for tensor, value in (
        (conv.weight, 2.0),
        (conv.bias, 1.0),
        (layer.running_mean, 3.0),
        (layer.running_var, 3.0),
        (layer.weight, 4.0),
        (layer.bias, 5.0),
    ):
        nn.init.constant_(tensor, value)
    folded = fold_norms(nn.Sequential(conv, layer))
    assert (folded[0].weight.item(), folded[0].bias.item()) == pytest.approx((4.0, 1.0))
    assert isinstance(folded[1], nn.Identity)


@pytest.mark.parametrize("norm_name", ["BN", "FrozenBN"])
@pytest.mark.parametrize("name", ALL_BODIES)
def test_every_body_has_the_same_features_without_norms(name: str, norm_name: str) -> None:
    torch.manual_seed(0)
    body = randomized(BODIES.get(name)(norm_name=norm_name)).eval().double()
    folded = fold_norms(body)
    has_none = name.startswith(("Swin", "ConvNeXt"))  # they have layer norms
    assert (count(body) > 10) is not has_none and count(folded) == 0
    images = torch.randn(1, 3, 64, 97, dtype=torch.float64)
    with torch.no_grad():
        for expected, features in zip(body(images), folded(images), strict=True):
            assert_equal(features, expected, 1e-9)


@pytest.mark.parametrize("name", ["R-18", "R-50", "EfficientNet-Lite0"])
def test_single_precision(name: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 97)
    body = randomized(BODIES.get(name)(norm_name="BN")).eval()
    folded = fold_norms(body)
    with torch.no_grad():
        for expected, features in zip(body(images), folded(images), strict=True):
            assert_equal(features, expected)


def test_deformable_convolutions_are_merged_too() -> None:
    body = BODIES.get("R-18")(norm_name="BN", deformable=Deformable((False, True, True, True), modulated=True))
    for module in body.modules():
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.offset.weight, std=0.01)
    body = randomized(body).eval()
    folded = fold_norms(body)
    images = torch.randn(1, 3, 64, 64)
    assert count(folded) == 0
    with torch.no_grad():
        for expected, features in zip(body(images), folded(images), strict=True):
            assert_equal(features, expected)


class Twice(nn.Module):
    """The output of its convolution is used with and without the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class SharedConv(nn.Module):
    """One convolution under two norms, behind a loop that no graph shows."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 3, 3, padding=1)
        self.towers = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.shape[0])):
            x = self.towers[0](x) + self.towers[1](x) if x.sum() > -1e9 else x
        return x


class NormFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


@pytest.mark.parametrize(
    "model",
    [
        Twice(),
        SharedConv(),
        NormFirst(),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
    ],
    ids=["two users", "shared", "norm first", "no statistics", "activation between", "computed weights"],
)
def test_what_cannot_be_merged_stays(model: nn.Module) -> None:
    model = randomized(model).eval()
    folded = fold_norms(model)
    images = torch.randn(2, 3, 9, 9)
    assert count(folded) == count(model)
    with torch.no_grad():
        assert_equal(folded(images), model(images))


def test_group_norms_and_the_original_stay_as_they_are() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 32, 3), norm("GN", 32), nn.Conv2d(32, 4, 3), nn.BatchNorm2d(4)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_norms(model.train())
    assert isinstance(folded[1], nn.GroupNorm) and isinstance(folded[3], nn.Identity)
    assert model.training and not folded.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(model.state_dict()) == list(before)


def test_a_norm_without_weights() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False))).eval()
    images = torch.randn(1, 3, 9, 9)
    folded = fold_norms(model)
    assert count(folded) == 0
    with torch.no_grad():
        assert_equal(folded(images), model(images))
