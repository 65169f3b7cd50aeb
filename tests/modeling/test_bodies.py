"""ResNets by name, and what a body states about itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.modeling.bodies import BODIES, freeze, strides_of
from engine.modeling.bodies.resnet import RESNETS, Deformable, ResNet, resnet


@pytest.mark.parametrize("name", ["R-18", "R-50"])
@pytest.mark.parametrize(("dilation", "strides"), [(1, (4, 8, 16, 32)), (2, (4, 8, 16, 16))])
def test_maps_have_the_stated_channels_and_strides(name: str, dilation: int, strides: tuple[int, ...]) -> None:
    body = BODIES.get(name)(stem_channels=8, res2_channels=16, width_per_group=8, res5_dilation=dilation).eval()
    assert strides_of(body) == strides
    features = body(torch.randn(1, 3, 64, 96))
    expected = [(1, channels, 64 // s, 96 // s) for channels, s in zip(body.out_channels, strides, strict=True)]
    assert [tuple(feature.shape) for feature in features] == expected


def test_every_depth_has_a_name() -> None:
    assert RESNETS == ("R-18", "R-34", "R-50", "R-101", "R-152")
    assert set(RESNETS) <= set(BODIES.names())


def test_weights_are_drawn_as_ever() -> None:
    """Sums of the weights of seed 0, from the version before bodies took free arguments."""
    torch.manual_seed(0)
    body = ResNet(50, 8, 16, 2, 8, "BN", deformable=Deformable((False, True, True, True), modulated=True, groups=2))
    sums = [part.double().sum().item() for name, part in body.state_dict().items() if name.endswith("conv.weight")]
    assert len(sums) == 13 and sum(sums) == pytest.approx(30.212867, rel=1e-5)
    offsets = [part for name, part in body.named_parameters() if ".offset." in name]
    assert len(offsets) == 26 and not any(part.any() for part in offsets)


def test_frozen_parts() -> None:
    frozen = {name.split(".")[0] for name, p in resnet(18, freeze_at=2).named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "layer1"}
    parts = [nn.Linear(1, 1), nn.Linear(1, 1)]
    freeze(parts, 1)
    assert [part.weight.requires_grad for part in parts] == [False, True]


def test_strides_of_a_body_that_states_none() -> None:
    body = nn.Identity()
    body.out_channels = (8, 16, 32)
    assert strides_of(body) == (4, 8, 16)
