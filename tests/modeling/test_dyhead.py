from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.assembly.model import build_backbone, build_model
from engine.checkpoint import foreign
from engine.checkpoint.foreign import mmdetection
from engine.config import get_cfg, load_config
from engine.errors import InputError
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.necks import NECKS
from engine.modeling.necks.dyhead import DyHead, DynamicBlock, DynamicReLU, first_values
from engine.modeling.selection import Selection
from engine.structures import ImageBatch
from tests.modeling.two_stage import assert_same_set, converted_model, freeze_statistics, small_config, targets_of

CHANNELS, STRIDES = (16, 24, 32, 40), (4, 8, 16, 32)
LOSSES = {"loss_cls": "loss_cls", "loss_reg": "loss_bbox", "loss_centerness": "loss_centerness"}


def neck_of(**arguments: Any) -> DyHead:
    given = {"in_channels": CHANNELS, "strides": STRIDES, "out_channels": 32, "num_blocks": 2, "use_c5": False}
    return NECKS.get("DyHead")(**{**given, **arguments})


def with_random_offsets(neck: DyHead) -> DyHead:
    for block in neck.blocks:
        torch.nn.init.normal_(block.offset.weight, std=0.1)
    return neck


# ---------------------------------------------------------------- mmdetection


@pytest.fixture(scope="module")
def data(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "mmdet" / "golden_dyhead.pt", weights_only=True)


def model_of(data: dict[str, Any], golden_dir: Path) -> GeneralizedRCNN:
    atss = torch.load(golden_dir / "mmdet" / "golden_atss.pt", weights_only=True)["state_dict"]
    body = {name: tensor for name, tensor in atss.items() if name.startswith("backbone.")}
    cfg = small_config(
        "dyhead/atss_dyhead_R_50_FPN_1x.yaml",
        **{"MODEL.NECK.ARGS": {"num_blocks": 2}, "TEST.DETECTIONS_PER_IMG": 300},
    )
    return converted_model(cfg, {**body, **data["state_dict"]}).eval()


def flat(maps: list[Tensor], per_anchor: int) -> Tensor:
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, per_anchor) for m in maps], dim=1)


@torch.no_grad()
def test_blocks_head_and_detections_are_those_of_mmdetection(data: dict[str, Any], golden_dir: Path) -> None:
    model = model_of(data, golden_dir)
    neck, internals = model.backbone.fpn, data["internals"]
    levels = neck.pyramid(model.backbone.body(data["image"]))
    for ours, theirs in zip(levels, data["fpn_outs"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    block, levels = neck.blocks[0], data["fpn_outs"]
    for i, level in enumerate(levels):
        offsets, masks = block.sampling(level)
        recorded = internals["offset_and_mask0"][i]
        torch.testing.assert_close(offsets, recorded[:, :18], rtol=1e-4, atol=1e-4)
        mid = block.conv_mid(level, offsets, masks)
        torch.testing.assert_close(mid, internals["mid0"][i], rtol=1e-4, atol=1e-4)
        seen = [mid]
        if i > 0:
            seen.append(block.from_finer(levels[i - 1], level, offsets, masks, 2))
            torch.testing.assert_close(seen[-1], internals["low0"][i - 1], rtol=1e-4, atol=1e-4)
        coefficients = block.task_attention.coefficients(block.spatial(levels, i)) + 0.5
        torch.testing.assert_close(coefficients.flatten(), internals["task_coeff0"][i], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(block(levels), internals["block0_outs"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    features = model.backbone(data["image"])
    for ours, theirs in zip(features, data["neck_outs"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)
    outputs = model.rpn.head(features)
    torch.testing.assert_close(outputs.logits, flat(data["cls_scores"], 5), rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(outputs.codes, flat(data["bbox_preds"], 4), rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(outputs.centerness, flat(data["centernesses"], 1)[..., 0], rtol=1e-4, atol=2e-4)
    for case, size in ((data, (256, 320)), (data["padded_case"], tuple(data["padded_case"]["img_shape"]))):
        (found,) = model(ImageBatch(case["image"], [size]))
        found.boxes = found.boxes / case.get("scale_factor", (1.0,))[0]
        final = case["final"]
        assert_same_set(found, final["bboxes"], final["scores"], final["labels"], 0.05, 1e-3)
    model.rpn.selection = Selection(score_thresh=0.02, pre_nms_top_n=25, nms_thresh=0.45, max_detections=40)
    (found,), final = model(ImageBatch(data["image"], [(256, 320)])), data["variant"]["final"]
    assert_same_set(found, final["bboxes"], final["scores"], final["labels"], 0.05, 1e-3)


@pytest.mark.parametrize("name", ["", "train_batch", "train_empty", "train_batch_one_empty"])
def test_losses_are_those_of_mmdetection(data: dict[str, Any], golden_dir: Path, name: str) -> None:
    case = data[name] if name else data
    model = freeze_statistics(model_of(data, golden_dir))
    gts = case.get("gts", [{"bboxes": data["gt_bboxes"], "labels": data["gt_labels"]}])
    padded = data["padded_case"]
    both = [(data["image"], (256, 320)), (padded["image"], tuple(padded["img_shape"]))]
    used = {"": both[:1], "train_empty": both[1:]}.get(name, both)
    targets = [targets_of(gt["bboxes"], gt["labels"], size) for gt, (_, size) in zip(gts, used, strict=True)]
    batch = ImageBatch(torch.cat([image for image, _ in used]), [size for _, size in used])
    with torch.no_grad():
        outputs, anchors = model.rpn(model.backbone(batch.tensor), batch.padded_size)
        labels, boxes = model.rpn.assign_targets(outputs, anchors, targets)
    for i, recorded in enumerate(case["targets"]["per_image"] if name else []):
        assert torch.equal(torch.where(labels[i] < 0, 5, labels[i]), recorded["labels"])  # 5 is the background
        is_positive = labels[i] >= 0
        torch.testing.assert_close(boxes[i][is_positive], recorded["bbox_targets"][is_positive])
    losses = model(batch, targets)
    for ours, theirs in LOSSES.items():
        torch.testing.assert_close(losses[ours], sum(case["losses"][theirs]), rtol=1e-4, atol=1e-6)
    sum(losses.values()).backward()
    theirs = mmdetection.translate({key: torch.tensor(norm) for key, norm in case["grad_norms"].items()})
    ours = {key: parameter.grad.norm() for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert theirs.keys() == ours.keys()
    for key, norm in theirs.items():
        # An activation on the other side of zero, as on some CPUs, changes gradients by 0.5 %.
        torch.testing.assert_close(ours[key], norm.reshape(()), rtol=1e-2, atol=1e-4, msg=key)


def test_names_of_blocks_over_a_pafpn() -> None:
    laterals = {f"neck.0.lateral_convs.{i}.conv.weight": torch.ones(1, 1, 1, 1) for i in range(3)}
    others = (
        "neck.0.fpn_convs.3.gn.weight",
        "neck.0.fpn_convs.3.conv.weight",
        "neck.0.downsample_convs.1.conv.bias",
        "neck.0.pafpn_convs.0.conv.bias",
        "neck.1.dyhead_blocks.11.spatial_conv_low.norm.bias",
        "neck.1.dyhead_blocks.0.task_attn_module.conv2.conv.weight",
    )
    tensors, name = foreign.translate({**laterals, **{each: torch.ones(1) for each in others}})
    assert name == "mmdetection"
    assert list(tensors) == [
        *(f"backbone.fpn.pyramid.fpn_inner{i}.weight" for i in (2, 3, 4)),
        "backbone.fpn.pyramid.top_blocks.p6.1.weight",
        "backbone.fpn.pyramid.top_blocks.p6.0.weight",
        "backbone.fpn.pyramid.pafpn_down4.bias",
        "backbone.fpn.pyramid.pafpn_layer3.bias",
        "backbone.fpn.blocks.11.conv_low.norm.bias",
        "backbone.fpn.blocks.0.task_attention.fc2.weight",
    ]


# ---------------------------------------------------------------- by hand


def test_values_that_come_first_in_memory() -> None:
    x = torch.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    assert first_values(x, (1, 2)).tolist() == [[[[0, 1]], [[2, 3]]], [[[24, 25]], [[26, 27]]]]
    transposed = x.to(memory_format=torch.channels_last)
    assert torch.equal(first_values(transposed, (2, 2)), first_values(x, (2, 2)))


def test_dynamic_relu_starts_as_a_relu() -> None:
    relu = DynamicReLU(8)
    for parameter in relu.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(2, 8, 3, 5)
    assert torch.allclose(relu(x), F.relu(x))
    with torch.no_grad():
        relu.fc2.bias[8:16] = 0.6  # intercept b1 of every channel: 0.6 / 6
    assert torch.allclose(relu(x), torch.maximum(x + 0.1, torch.zeros(1)), atol=1e-6)


def test_a_block_without_offsets_is_the_mean_of_half_convolutions() -> None:
    """Masks of 0.5, offsets of 0, and attention over levels at least 0.5: here exactly, with weights of zero."""
    torch.manual_seed(0)
    block = DynamicBlock(16, (8, 16))
    torch.nn.init.zeros_(block.scale_attention.weight)
    fine, coarse = torch.randn(1, 16, 7, 9), torch.randn(1, 16, 4, 5)

    def seen(conv: Any, x: Tensor, stride: int = 1) -> Tensor:
        return conv.norm(F.conv2d(x, 0.5 * conv.conv.weight, padding=1, stride=stride))

    high = F.interpolate(seen(block.conv_high, coarse), size=(7, 9), mode="bilinear", align_corners=True)
    expected = [
        0.5 * (seen(block.conv_mid, fine) + high) / 2,
        0.5 * (seen(block.conv_mid, coarse) + seen(block.conv_low, fine, 2)) / 2,
    ]
    for i in range(2):
        torch.testing.assert_close(block.spatial([fine, coarse], i), expected[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sides", [(25, 13, 7, 4), (25, 12, 6, 3), (4, 2, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("pyramid", ["FPN-RETINANET", "PAFPN"])
def test_any_sizes_down_to_a_single_cell(sides: tuple[int, ...], pyramid: str) -> None:
    torch.manual_seed(0)
    neck = with_random_offsets(neck_of(pyramid=pyramid))
    features = [torch.randn(2, c, side, side + 1) for c, side in zip(CHANNELS, sides, strict=True)]
    expected = neck.pyramid(features)
    levels = neck(features)
    assert [level.shape for level in levels] == [level.shape for level in expected]
    sum(level.square().sum() for level in levels).backward()
    assert all(parameter.grad.isfinite().all() for parameter in neck.parameters())


@pytest.mark.parametrize("strides", [(4, 8, 16, 16), (4, 8, 32, 64)])
def test_strides_that_do_not_double(strides: tuple[int, ...]) -> None:
    neck = neck_of(strides=strides)
    features = [torch.randn(1, c, 256 // s, 128 // s) for c, s in zip(CHANNELS, strides, strict=True)]
    levels = neck(features)
    assert [level.shape[-2:] for level in levels] == [level.shape[-2:] for level in neck.pyramid(features)]


def test_autocast_samples_in_float32() -> None:
    torch.manual_seed(0)
    block = DynamicBlock(16, (8, 16), zero_offsets=False)
    levels = [torch.randn(1, 16, 6, 6), torch.randn(1, 16, 3, 3)]
    expected = block(levels)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(levels)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    neck = with_random_offsets(neck_of())
    features = [torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
    together = neck(features)
    for i in range(2):
        for ours, theirs in zip(together, neck([each[i : i + 1] for each in features]), strict=True):
            torch.testing.assert_close(ours[i : i + 1], theirs, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- configuration


def backbone_of(*words: Any) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "R-18", "MODEL.NECK.NAME", "DyHead", *words])
    return build_backbone(cfg)


@pytest.mark.parametrize("channels", [64, 128])
def test_by_configuration(channels: int) -> None:
    arguments = {"num_blocks": 1, "pyramid": "PAFPN", "pyramid_args": {"extra_levels": "pool"}}
    backbone = backbone_of("MODEL.NECK.ARGS", arguments, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", channels)
    assert backbone.strides == (8, 16, 32, 64, 128) and backbone.out_channels == channels
    assert len(backbone.fpn.blocks) == 1 and backbone.fpn.blocks[0].conv_mid.norm.num_groups == 16


def test_a_head_without_towers_takes_any_multiple_of_the_groups() -> None:
    """Channels that the 32 groups of a tower's norms would not allow, from a file with arguments in arguments."""
    small = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", "", "MODEL.BACKBONE.NAME", "R-18"]
    arguments = "{num_blocks: 1, pyramid: PAFPN, pyramid_args: {num_levels: 5}}"
    words = [*small, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", "48", "MODEL.NECK.ARGS", arguments]
    cfg = load_config("configs/dyhead/atss_dyhead_R_50_FPN_1x.yaml", words)
    model = build_model(cfg).eval()
    assert len(model.rpn.head.cls_tower) == len(model.rpn.head.bbox_tower) == 0
    with torch.no_grad():
        (found,) = model([torch.randn(3, 40, 56)])
    assert found.size == (40, 56)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 40),
            "DyHead has group norms of 16 groups, but the levels have 40 channels: set "
            "MODEL.RESNETS.BACKBONE_OUT_CHANNELS to a multiple of 16",
        ),
        (("MODEL.NECK.ARGS", {"norm_groups": 0}), "DyHead has group norms of 0 groups"),
        (("MODEL.NECK.ARGS", {"pyramid": "PAFNP"}), "MODEL.NECK.ARGS.pyramid: nothing is registered as PAFNP; did you"),
        (
            ("MODEL.NECK.ARGS", {"pyramid_args": {"num_levls": 5}, "pyramid": "PAFPN"}),
            "MODEL.NECK.ARGS.pyramid_args.num_levls: PAFPN takes no such argument; did you mean num_levels",
        ),
    ],
)
def test_arguments_that_do_not_fit(words: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError) as raised:
        backbone_of(*words)
    assert message in str(raised.value) and "\n" not in str(raised.value)
