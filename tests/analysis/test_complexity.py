"""Counts compared with arithmetic by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.analysis.complexity import complexity, complexity_table
from engine.layers.deform_conv import DeformConv2d
from engine.modeling.bodies.resnet import BLOCKS_PER_STAGE, ResNet
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.structures import CONTINUOUS, Detections


class Stub(nn.Module):
    """A detector that returns the output of its only part for a batch of one image."""

    def __init__(self, part: nn.Module, call: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.part = part
        self.call = call or (lambda part, images: part(images))

    def forward(self, images: list[Tensor]) -> list[Detections]:
        out = self.call(self.part, images[0][None]).flatten()
        return [Detections(out[:, None].expand(-1, 4), out, out.long(), images[0].shape[-2:])]


def test_a_convolution() -> None:
    cost = complexity(Stub(nn.Conv2d(3, 8, 3, stride=2, padding=1)), (10, 12))
    whole, part = cost.modules
    assert (whole.name, part.name) == ("", "part")
    assert part.operations == whole.operations == 8 * 3 * 3 * 3 * (5 * 6)
    assert part.activations == 8 * 5 * 6
    assert part.parameters == part.trainable == 8 * 3 * 3 * 3 + 8
    assert cost.num_regions is None


def test_groups_and_frozen_weights() -> None:
    conv = nn.Conv2d(3, 6, 1, groups=3, bias=False)
    conv.weight.requires_grad_(False)
    (_, part) = complexity(Stub(conv), (4, 5)).modules
    assert (part.operations, part.parameters, part.trainable) == (6 * 1 * 4 * 5, 6, 0)


@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution(modulated: bool) -> None:
    layer = DeformConv2d(3, 6, modulated=modulated, stride=2)
    cost = complexity(Stub(layer), (8, 12))
    pixels, taps = 4 * 6, 9
    branch = (27 if modulated else 18) * 3 * taps * pixels
    convolution = 6 * 3 * taps * pixels
    samples = 3 * taps * pixels * (5 if modulated else 4)
    assert cost.modules[0].operations == branch + convolution + samples
    assert cost.modules[0].activations == (27 if modulated else 18) * pixels + 6 * pixels
    assert "torchvision::deform_conv2d" not in cost.uncounted


@pytest.mark.parametrize(("ratio", "samples"), [(3, 3), (1, 1), (0, 2)])
def test_region_pooling(ratio: int, samples: int) -> None:
    regions = torch.tensor([[0.0, 0, 9, 9], [2, 3, 30, 20], [5, 5, 8, 30], [0, 0, 1, 1], [4, 4, 25, 30]])
    pooler = RoIPooler(7, (1,), CONTINUOUS, ratio)
    cost = complexity(Stub(pooler, lambda pooler, images: pooler([images], [regions])), (32, 32))
    assert cost.modules[0].operations == 5 * 3 * 7 * 7 * samples**2 * 4
    assert "torchvision::roi_align" not in cost.uncounted


def resnet50_operations(height: int, width: int, stride_in_1x1: bool) -> int:
    """Convolutions of the paper's table 1: product of the kernel's sides, channels and output pixels of each."""
    pixels = height * width // 4
    total = 64 * 3 * 7 * 7 * pixels
    pixels //= 4  # pooling
    in_channels = 64
    for stage, num_blocks in enumerate(BLOCKS_PER_STAGE[50]):
        mid, out = 64 * 2**stage, 256 * 2**stage
        for block in range(num_blocks):
            before = pixels
            if block == 0 and stage > 0:
                pixels //= 4
            first = pixels if stride_in_1x1 else before
            total += in_channels * mid * first + mid * mid * 9 * pixels + mid * out * pixels
            if block == 0:
                total += in_channels * out * pixels
            in_channels = out
    return total


def test_resnet_50() -> None:
    """4.09 billion multiply-adds at 224 x 224 with the classifier, as torchvision says; 3.8 with the stride in the 1x1,
    as the paper says."""
    assert resnet50_operations(224, 224, False) == 4_089_184_256 - 2048 * 1000
    assert 3.8e9 < resnet50_operations(224, 224, True) < 3.9e9
    for stride_in_1x1 in (False, True):
        body = ResNet(50, stride_in_1x1=stride_in_1x1)
        body.layer1.requires_grad_(False)
        cost = complexity(Stub(body, lambda body, images: torch.cat([c.flatten() for c in body(images)])), (64, 96))
        by_name = {module.name: module for module in cost.modules}
        assert by_name["part"].operations == resnet50_operations(64, 96, stride_in_1x1)
        assert by_name["part.stem.conv1"].operations == 64 * 3 * 49 * 32 * 48
        assert by_name["part"].parameters == 23_454_912  # 25,557,032 minus those of the classifier and of batch norm
        assert by_name["part"].parameters - by_name["part"].trainable == by_name["part.layer1"].parameters


def test_the_model_is_left_as_it_was() -> None:
    model = Stub(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost = complexity(model, (4, 4))
    assert model.training and not model._forward_hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert cost.modules[0].operations == 3 * 4 * 16 + 2 * 4 * 16  # a batch norm's products and sums


def test_table() -> None:
    cost = complexity(Stub(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())), (1000, 1000))
    lines = complexity_table(cost, 2).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["all", "part", "part.0"]  # the ReLU is not counted
    assert lines[2].split()[1:] == ["16", "16", "0.012", "4.000"]
    assert len(complexity_table(cost, 0).splitlines()) == 3
    with pytest.raises(ValueError, match="depth"):
        complexity_table(cost, -1)
