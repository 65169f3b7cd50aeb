from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.assembly.model import build_backbone
from engine.checkpoint.foreign import mmdetection
from engine.config import get_cfg
from engine.errors import InputError
from engine.modeling.necks import NECKS, Neck
from engine.registry import call_with

CHANNELS, STRIDES = (16, 24, 32, 40), (4, 8, 16, 32)
GN = {"norm_name": "GN", "norm_groups": 8}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"extra_levels": "pool"},
    "plain_4_outs": {"extra_levels": "pool", "num_levels": 4},
    "gn": {"extra_levels": "pool", **GN},
    "gn_relu": {"extra_levels": "pool", **GN, "use_relu": True},
    "gn_no_norm_on_lateral": {"extra_levels": "pool", **GN, "norm_on_lateral": False},
    "start1_on_output": {"finest_stride": 8, "extra_levels": "output"},
    "start1_on_output_gn": {"finest_stride": 8, "extra_levels": "output", **GN},
    "start1_on_input_relu": {"finest_stride": 8, "extra_levels": "input", "relu_before_p7": True},
    "start1_on_lateral": {"finest_stride": 8, "extra_levels": "lateral"},
    "six_outs_pool": {"extra_levels": "pool", "num_levels": 6},
}


def neck_of(**arguments: Any) -> Neck:
    return NECKS.get("PAFPN")(**{"in_channels": CHANNELS, "strides": STRIDES, "out_channels": 32, **arguments})


@pytest.mark.parametrize("name", CASES)
def test_levels_and_gradients_are_those_of_mmdetection(golden_dir: Path, name: str) -> None:
    data = torch.load(golden_dir / "mmdet" / "golden_pafpn.pt", weights_only=True)
    case = data["cases"][name]
    neck = neck_of(**{"finest_stride": 4, "relu_before_p7": False, **CASES[name]})

    def ours(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        named = mmdetection.translate({f"neck.{key}": value.float() for key, value in tensors.items()})
        return {key.removeprefix("backbone.fpn."): value for key, value in named.items()}

    neck.load_state_dict(ours(case["state_dict"]), strict=True)
    inputs = [x.clone().requires_grad_() for x in data["inputs"]]
    outs = neck(inputs)
    for out, expected in zip(outs, case["outs"], strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    if case["outs_even"]:
        for out, expected in zip(neck(data["inputs_even"]), case["outs_even"], strict=True):
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    generator = torch.Generator().manual_seed(7)
    sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outs).backward()
    used = [(x, expected) for x, expected in zip(inputs, case["grad_inputs"], strict=False) if expected.numel()]
    for x, expected in used:
        torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-3)
    gradients = {key: parameter.grad for key, parameter in neck.named_parameters()}
    for key, expected in ours(case["grads"]).items():
        scale = expected.abs().max()
        torch.testing.assert_close(gradients[key] / scale, expected / scale, rtol=0, atol=1e-4, msg=key)


@pytest.mark.parametrize(
    ("body_strides", "strides"),
    [
        ((4, 8, 16, 32), (8, 16, 32, 64, 128)),
        ((8, 16, 32), (8, 16, 32, 64, 128)),
        ((4, 8, 16, 16), (8, 16, 16, 32, 64)),  # a dilated last stage
        ((16,), (16, 32, 64, 128, 256)),
        ((8, 32), (8, 32, 64, 128, 256)),
    ],
)
@pytest.mark.parametrize("extra_levels", ["pool", "output", "lateral", "input"])
def test_levels_follow_from_the_maps_of_the_body(
    body_strides: tuple[int, ...], strides: tuple[int, ...], extra_levels: str
) -> None:
    channels = [8 * i for i in range(1, len(body_strides) + 1)]
    neck = neck_of(in_channels=channels, strides=body_strides, out_channels=8, extra_levels=extra_levels)
    features = [torch.randn(1, c, 256 // s, 512 // s) for c, s in zip(channels, body_strides, strict=True)]
    levels = neck(features)
    assert tuple(neck.strides) == strides and neck.out_channels == 8
    assert [tuple(level.shape) for level in levels] == [(1, 8, 256 // s, 512 // s) for s in strides]


def test_a_body_that_rounds_sizes_down() -> None:
    features = [torch.randn(1, c, side, side) for c, side in zip(CHANNELS, (25, 12, 6, 3), strict=True)]
    assert [level.shape[-1] for level in neck_of()(features)] == [12, 6, 3, 2, 1]


def test_the_bottom_up_path_adds_finer_levels_to_coarser_ones_only() -> None:
    torch.manual_seed(0)
    neck = neck_of(extra_levels="pool", num_levels=3)
    laterals = [torch.randn(1, 32, side, side) for side in (8, 4, 2)]
    neck.top_down = lambda features: laterals
    before = neck(laterals)
    laterals[1] = laterals[1] + 1
    finest, *coarser = neck(laterals)
    assert torch.equal(finest, before[0])
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(coarser, before[1:], strict=True))


def test_gradients_of_single_cells_in_bfloat16_are_those_in_float32() -> None:
    """Images of up to 32 pixels. Several times, since uninitialised memory differs from time to time."""
    torch.manual_seed(0)
    neck, features, gradients = neck_of(extra_levels="output"), [torch.randn(2, c, 1, 1) for c in CHANNELS], []
    weights = [torch.randn(2, 32, 1, 1) for _ in range(5)]
    for is_float32 in (True, False, False, False):
        neck.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not is_float32):
            levels = neck(features)
        sum((level.float() * weight).sum() for level, weight in zip(levels, weights, strict=True)).backward()
        gradients.append([parameter.grad for parameter in neck.parameters()])
    for run in gradients[1:]:
        for ours, theirs in zip(run, gradients[0], strict=True):
            assert (ours - theirs).abs().max() <= 0.03 * theirs.abs().max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_levels": 2}, "num_levels is 2, but the body has 3 maps of stride 8 or more: write 3 or more"),
        (
            {"extra_levels": "outputs"},
            "extra_levels is 'outputs', but there is no such kind of level; did you mean output",
        ),
        ({"finest_stride": 64}, r"needs a map of stride 64 or more, but the body's strides are \[4, 8, 16, 32\]"),
        ({"norm_name": "GN", "norm_groups": 5}, "32 channels are not divisible into 5 groups"),
        ({"norm_name": "GN", "norm_groups": 0}, "32 channels are not divisible into 0 groups"),
        ({"norm_name": "GM"}, "nothing is registered as GM"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    given = {"in_channels": CHANNELS, "strides": STRIDES}
    with pytest.raises(InputError, match=message):
        call_with(NECKS.get("PAFPN"), "PAFPN", {"out_channels": 32, **arguments}, "MODEL.NECK.ARGS", given)


def test_the_keys_of_fpn_count() -> None:
    cfg = get_cfg()
    words = ["MODEL.BACKBONE.NAME", "R-18", "MODEL.NECK.NAME", "PAFPN", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32]
    cfg.merge_from_list([*words, "MODEL.FPN.USE_GN", True, "MODEL.RETINANET.USE_C5", False])
    backbone = build_backbone(cfg)
    assert backbone.strides == (8, 16, 32, 64, 128)
    assert "pafpn_down3.1.weight" in backbone.fpn.state_dict()
    assert backbone.fpn.top_blocks.p6[0].weight.shape == (32, 32, 3, 3)
