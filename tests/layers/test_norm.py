from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.layers.norm import norm


@pytest.mark.parametrize("name", ["FrozenBN", "BN", "SyncBN", "GN"])
def test_every_norm_keeps_the_shape(name: str) -> None:
    x = torch.randn(2, 32, 3, 4)
    assert norm(name, 32).eval()(x).shape == x.shape


def test_frozen_norm_has_no_epsilon_and_nothing_to_train() -> None:
    layer = norm("FrozenBN", 2)
    layer.weight[:], layer.bias[:] = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0])
    layer.running_mean[:], layer.running_var[:] = torch.tensor([1.0, 0.0]), torch.tensor([4.0, 1.0])
    x = torch.ones(1, 2, 1, 1) * 3
    assert layer(x).flatten().tolist() == [2.0, 4.0]  # 2 (3 - 1) / 2 and 3 + 1
    assert not list(layer.parameters()) and len(layer.state_dict()) == 4


def test_group_norm_as_torchs() -> None:
    torch.manual_seed(0)
    layer, x = norm("GN", 64), torch.randn(2, 64, 5, 5)
    assert torch.equal(layer(x), nn.GroupNorm(32, 64)(x)) and layer.num_groups == 32


def test_group_norm_of_a_single_pixel() -> None:
    """torch.nn.GroupNorm refuses it with 32 channels: the top of a pyramid over a small image, one image a batch."""
    layer = norm("GN", 32)
    nn.init.constant_(layer.bias, 0.5)
    assert torch.allclose(layer(torch.randn(1, 32, 1, 1)), torch.tensor(0.5), atol=1e-4)


def test_group_norm_of_wrong_channels() -> None:
    with pytest.raises(ValueError, match="divisible"):
        norm("GN", 33)
