from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from engine.errors import InputError
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


def test_a_misspelt_norm_is_one_line() -> None:
    with pytest.raises(InputError, match="^norm: nothing is registered as SynBN; did you mean SyncBN"):
        norm("SynBN", 8)


def test_frozen_norm_as_torchvisions_and_in_the_type_of_its_input() -> None:
    torch.manual_seed(0)
    layer, theirs = norm("FrozenBN", 4), FrozenBatchNorm2d(4, eps=0.0)
    for buffer in layer.buffers():
        buffer.uniform_(0.5, 2.0)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(layer(x), theirs(x))
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), layer(x), rtol=0.03, atol=0.03)


def test_synchronised_norm_on_the_cpu_takes_its_own_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process group torch's refuses a CPU."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    x = torch.randn(2, 4, 3, 3)
    with pytest.raises(ValueError, match="GPU"):
        nn.SyncBatchNorm(4)(x)
    assert torch.equal(norm("SyncBN", 4)(x), nn.BatchNorm2d(4)(x))
