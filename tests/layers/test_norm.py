from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from engine.errors import InputError
from engine.layers.norm import NORMS, norm
from engine.modeling.bodies import BODIES
from engine.modeling.dense.towers import tower
from engine.modeling.necks.fpn import fpn
from engine.registry import call_with


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
    for channels in (16, 33):
        with pytest.raises(InputError, match=f"^norm GN: {channels} channels are not divisible into 32 groups; change"):
            norm("GN", channels)


@pytest.mark.parametrize(("name", "own"), [("FrozenBN", 0.0), ("BN", 1e-5), ("SyncBN", 1e-5), ("GN", 1e-5)])
def test_an_eps_is_used_and_none_is_the_layers_own(name: str, own: float) -> None:
    assert norm(name, 32).eps == own and norm(name, 32, eps=0.25).eps == 0.25
    x = torch.tensor([0.0, 1.0]).repeat(1, 32, 2, 1)  # variance 1 / 4 in every channel and group
    layer = norm(name, 32, eps=0.75)
    if name == "FrozenBN":
        layer.running_mean.fill_(0.5)
        layer.running_var.fill_(0.25)
    assert torch.allclose(layer(x), x - 0.5)  # (x - 0.5) / sqrt(0.25 + 0.75)


@pytest.mark.parametrize("eps", [-1e-3, float("nan"), float("inf"), "1e-3", True])
def test_an_eps_that_is_none(eps: object) -> None:
    with pytest.raises(InputError, match="^norm BN: eps must be a number from 0 on, such as 0.001, got "):
        norm("BN", 8, eps=eps)


def test_a_norm_of_ones_own_with_and_without_an_eps() -> None:
    NORMS.register("OwnWithout")(lambda channels: nn.BatchNorm2d(channels))
    NORMS.register("OwnWith")(partial(nn.BatchNorm2d, momentum=0.01))
    try:
        assert norm("OwnWithout", 8).eps == 1e-5 and norm("OwnWith", 8, 1e-3).eps == 1e-3
        with pytest.raises(InputError, match="^norm OwnWithout: has no parameter eps, .* of 0.001; give it one"):
            norm("OwnWithout", 8, 1e-3)
    finally:
        for name in ("OwnWithout", "OwnWith"):
            del NORMS._obj_map[name]


def test_group_norm_on_too_few_channels_is_one_line_everywhere() -> None:
    line = "^norm GN: 16 channels are not divisible into 32 groups; change"
    with pytest.raises(InputError, match=line):
        tower(16, 1)
    with pytest.raises(InputError, match=line):
        fpn([8, 8], [4, 8], 16, use_gn=True)
    with pytest.raises(InputError, match=line):
        call_with(BODIES.get("EfficientNet-Lite0"), "EfficientNet-Lite0", {"norm_name": "GN"}, "MODEL.BACKBONE.ARGS")


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
