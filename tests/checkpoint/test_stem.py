"""Weights of colour images in a network for other images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.checkpoint.stem import adapted
from engine.checkpoint.weights import WeightFile, load_weights
from engine.errors import InputError
from engine.modeling.bodies.resnet import resnet


def model(channels: int, freeze_at: int = 0) -> nn.Module:
    wrapped = nn.Module()
    wrapped.backbone = nn.Module()
    wrapped.backbone.body = resnet(18, in_channels=channels, freeze_at=freeze_at)
    return wrapped


def weights_of(network: nn.Module) -> WeightFile:
    return WeightFile(dict(network.state_dict()), None, None, "w.pth", "engine")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_equal_channels_are_answered_as_before(channels: int) -> None:
    torch.manual_seed(0)
    weight, grey = torch.randn(8, 3, 7, 7, dtype=torch.float64), torch.rand(1, 1, 20, 20, dtype=torch.float64)
    before = torch.conv2d(grey.expand(-1, 3, -1, -1), weight)
    after = torch.conv2d(grey.expand(-1, channels, -1, -1), adapted(weight, channels))
    torch.testing.assert_close(before, after)


def test_of_four_channels_the_colours_keep_their_weights() -> None:
    weight = torch.randn(8, 3, 7, 7)
    found = adapted(weight, 4)
    torch.testing.assert_close(found[:, :3], weight * 0.75)
    torch.testing.assert_close(found[:, 3], weight.mean(1) * 0.75)


@pytest.mark.parametrize(("channels", "freeze_at"), [(1, 0), (4, 1), (6, 2)])
def test_loading_adapts_the_stem_and_says_so(channels: int, freeze_at: int, said: pytest.LogCaptureFixture) -> None:
    source, target = model(3), model(channels, freeze_at)
    report = load_weights(target, weights_of(source))
    assert report.ok
    (note,) = report.notes
    assert note.startswith(
        f"backbone.body.stem.conv1.weight: from 3 input channels to the {channels} of INPUT.CHANNELS"
    )
    assert ("FREEZE_CONV_BODY_AT 0 trains it" in note) == bool(freeze_at) and said.text.count(note) == 1
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = source.eval().backbone.body(images.expand(-1, 3, -1, -1))[-1]
        after = target.eval().backbone.body(images.expand(-1, channels, -1, -1))[-1]
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def test_only_three_channels_can_be_adapted() -> None:
    with pytest.raises(InputError, match="w.pth: was trained with INPUT.CHANNELS 4, but the configuration has 1"):
        load_weights(model(1), weights_of(model(4)))
    report = load_weights(model(4), weights_of(model(4)))
    assert report.ok and not report.notes


def test_no_other_layer_is_adapted() -> None:
    source = weights_of(model(3))
    name = "backbone.body.layer1.0.conv1.weight"
    source.tensors[name] = source.tensors[name][:, :3]
    report = load_weights(model(3), source)
    assert [each.name for each in report.reshaped] == [name]
