"""Towers of dense heads: kinds of convolutions and norms, and what classes and boxes share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.assembly.model import build_model
from engine.errors import InputError
from engine.layers.convs import SeparableConv2d
from engine.layers.deform_conv import DeformConv2d
from engine.layers.folding import fold_norms
from engine.layers.norm import NORMS
from engine.modeling.dense.centerness import CenternessHead
from engine.modeling.dense.retinanet import RetinaNetHead
from engine.modeling.dense.towers import Towers, over_levels, tower
from tests.configurations import batch_of_two, narrow

LIGHT = Towers("depthwise", 5, "BN", num_shared=1)
FILES = {
    "ATSS": "configs/quickstart/atss_R_18_fabric.yaml",
    "RETINANET": "configs/retinanet/retinanet_R_50_FPN_1x.yaml",
    "FCOS": "configs/fcos/fcos_R_50_FPN_1x.yaml",
    "GFL": "configs/gfl/gfl_R_50_FPN_1x.yaml",
    "VFNET": "configs/vfnet/vfnet_R_50_FPN_1x.yaml",
}
LIGHT_KEYS = {
    "MODEL.DENSE.TOWER_CONV": "depthwise",
    "MODEL.DENSE.TOWER_KERNEL": "5",
    "MODEL.DENSE.TOWER_NORM": "BN",
    "MODEL.DENSE.TOWER_SHARED": "1",
    "MODEL.NECK.ARGS": "{conv: depthwise, norm_name: BN}",
}


def maps(channels: int = 32) -> list[torch.Tensor]:
    """A pyramid whose levels have other means and spreads."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 8 >> i, 12 >> i, generator=generator) * (i + 1) + i for i in range(4)]


def test_the_published_towers_have_the_names_of_the_reference() -> None:
    names = {name for name, _ in CenternessHead(32, 2, num_convs=1).named_parameters() if "tower" in name}
    layers = ("0.weight", "0.bias", "1.weight", "1.bias")
    assert names == {f"{side}_tower.{layer}" for side in ("cls", "bbox") for layer in layers}


@pytest.mark.parametrize("num_shared", [0, 1, 2])
def test_convolutions_are_shared_before_the_towers_part(num_shared: int) -> None:
    shared, cls, box = Towers(num_shared=num_shared).build(32, 2)
    counts = [sum(isinstance(layer, nn.Conv2d) for layer in each) for each in (shared, cls, box)]
    assert counts == [num_shared, 2 - num_shared, 2 - num_shared]


def test_more_shared_convolutions_than_there_are() -> None:
    with pytest.raises(InputError, match="MODEL.DENSE.TOWER_SHARED is 3, but the towers have 2 convolutions"):
        Towers(num_shared=3).build(32, 2)


@pytest.mark.parametrize("num_shared", [0, 1, 2])
def test_the_last_convolution_is_deformable(num_shared: int) -> None:
    built = Towers("depthwise", 5, num_shared=num_shared, deformable=True).build(32, 2)
    kinds = [[type(m) for m in each if isinstance(m, DeformConv2d | SeparableConv2d)] for each in built]
    assert [DeformConv2d] == [kind for kind in (kinds[1] or kinds[0]) if kind is DeformConv2d]
    assert kinds[0] + kinds[1] == [SeparableConv2d, DeformConv2d]


def test_statistics_of_all_levels_together() -> None:
    """The cells of a pyramid, in one image each or laid side by side: the norm sees the same numbers."""
    torch.manual_seed(0)
    layers = tower(32, 1, "BN", conv="plain", kernel_size=1).train()
    levels = maps()
    outputs = over_levels(layers, levels)
    cells = torch.cat([x.flatten(2) for x in levels], dim=2)[..., None]
    twin = tower(32, 1, "BN", conv="plain", kernel_size=1).train()
    twin.load_state_dict({k: v for k, v in layers.state_dict().items() if "running" not in k}, strict=False)
    expected = twin(cells)
    torch.testing.assert_close(torch.cat([x.flatten(2) for x in outputs], dim=2), expected[..., 0])
    torch.testing.assert_close(layers[1].running_mean, twin[1].running_mean)
    torch.testing.assert_close(layers[1].running_var, twin[1].running_var)
    assert [x.shape for x in outputs] == [x.shape for x in levels]


def test_testing_agrees_with_training_once_the_statistics_are_those_of_the_batch() -> None:
    """Level by level this would not hold: each would be normalised by its own statistics in training only."""
    torch.manual_seed(0)
    layers = tower(32, 2, "BN", conv="depthwise", kernel_size=3)
    for module in layers:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        trained = over_levels(layers.train(), maps())
        tested = over_levels(layers.eval(), maps())
    for x, y in zip(trained, tested, strict=True):
        torch.testing.assert_close(x, y, rtol=0.02, atol=0.02)  # n - 1 against n in the variance


@pytest.mark.parametrize("norm_name", ["GN", "BN", "FrozenBN", "SyncBN"])
def test_norms_by_name(norm_name: str) -> None:
    head = CenternessHead(32, 2, num_levels=4, num_convs=1, towers=Towers(norm=norm_name))
    assert isinstance(head.cls_tower[1], NORMS.get(norm_name))
    outputs = head.train()(maps())
    assert outputs.logits.shape == (2, 8 * 12 + 4 * 6 + 2 * 3 + 1, 2)


@pytest.mark.parametrize("make", [CenternessHead, RetinaNetHead])
def test_first_outputs_of_a_light_head_are_no_constants(make: type[nn.Module]) -> None:
    """Small weights of two convolutions in a row must not leave the norm its epsilon."""
    torch.manual_seed(0)
    levels = {"num_levels": 4} if make is CenternessHead else {}
    head = make(32, 2, num_anchors=1, num_convs=2, towers=LIGHT, **levels).train()
    (shared,) = over_levels(head.shared_tower, maps()[:1])
    (x,) = over_levels(head.cls_tower, [shared])
    assert 0.3 < x.std() < 3
    assert head(maps()).logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("stage", FILES)
def test_light_detectors_by_keys(stage: str) -> None:
    """They train, every parameter gets a gradient, and the folded copy detects the same."""
    torch.manual_seed(0)
    keys = {**LIGHT_KEYS, "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": "0"}
    model = build_model(narrow(Path(FILES[stage]), keys), ["a", "b", "c"]).train()
    for name in ("shared_tower", "cls_tower"):
        assert isinstance(getattr(model.rpn.head, name)[0], SeparableConv2d)
        assert isinstance(getattr(model.rpn.head, name)[1], nn.BatchNorm2d)
    batch, targets = batch_of_two()
    losses = model(batch, targets)
    sum(losses.values()).backward()
    lacking = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not lacking and all(loss.isfinite() for loss in losses.values())
    folded = fold_norms(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.rpn.head.modules())
    with torch.no_grad():
        features, same = model.eval().backbone(batch.tensor), folded.backbone(batch.tensor)
        outputs, expected = folded.rpn.head(same), model.rpn.head(features)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.codes, expected.codes, rtol=1e-4, atol=1e-5)


def test_a_pyramid_without_the_upper_levels() -> None:
    keys = {
        "MODEL.NECK.ARGS": "{num_top: 1, conv: depthwise}",
        "MODEL.ATSS.ANCHOR_STRIDES": "(8, 16, 32, 64)",
        "MODEL.ATSS.ANCHOR_SIZES": "(32, 64, 128, 256)",
    }
    model = build_model(narrow(Path(FILES["ATSS"]), keys), ["a", "b", "c"])
    assert model.backbone.strides == (8, 16, 32, 64)
    assert isinstance(model.backbone.fpn.fpn_layer2, SeparableConv2d)
    losses = model.train()(*batch_of_two())
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"MODEL.DENSE.TOWER_KERNEL": "4"}, "MODEL.DENSE.TOWER_KERNEL is 4, but must be odd.*write 3"),
        ({"MODEL.DENSE.TOWER_SHARED": "3"}, "MODEL.DENSE.TOWER_SHARED is 3, but MODEL.ATSS.NUM_CONVS is 2"),
        ({"MODEL.DENSE.TOWER_CONV": "depthwize"}, "MODEL.DENSE.TOWER_CONV.*did you mean depthwise"),
        (
            {"MODEL.NECK.ARGS": "{conv: depthwize}"},
            "MODEL.NECK.ARGS.conv: nothing is registered as depthwize.*depthwise",
        ),
        ({"MODEL.NECK.ARGS": "{num_top: -1}"}, "num_top must be a whole number of at least 0 and at most 10, got -1"),
        (
            {"MODEL.ATSS_ON": "False", "MODEL.DENSE.NAME": "TOOD", "MODEL.DENSE.TOWER_CONV": "depthwise"},
            r"MODEL.DENSE.TOWER_\*: TOOD takes no argument towers; remove these keys",
        ),
        ({"MODEL.NECK.ARGS": "{norm_name: XN}"}, "norm: nothing is registered as XN"),
    ],
)
def test_wrong_values_are_told(keys: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(narrow(Path(FILES["ATSS"]), keys), ["a", "b", "c"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_a_norm_over_levels(layout: torch.memory_format) -> None:
    """Against the formula written out: torch's own gradient depends on the layout of its input."""
    norm_layer = nn.BatchNorm2d(4).double().train()
    shapes = [(2, 4, 4, 5), (2, 4, 2, 3), (2, 4, 1, 1)]
    maps = [torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout) for shape in shapes]
    inputs, plain = ([x.clone().requires_grad_() for x in maps] for _ in range(2))
    outputs = over_levels(nn.Sequential(norm_layer), inputs)

    cells = torch.cat([x.flatten(2) for x in plain], dim=2)
    mean, variance = cells.mean((0, 2)), cells.var((0, 2), unbiased=False)
    weight, shift = (each.view(4, 1, 1) for each in (norm_layer.weight, norm_layer.bias))
    scale = (variance + norm_layer.eps).rsqrt().view(4, 1, 1)
    expected = [(x - mean.view(4, 1, 1)) * scale * weight + shift for x in plain]
    gradients = [torch.randn_like(x) for x in expected]
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    found = torch.autograd.grad(outputs, [*inputs, norm_layer.weight], gradients)
    wanted = torch.autograd.grad(expected, [*plain, norm_layer.weight], gradients)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
