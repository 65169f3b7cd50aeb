"""cfg -> model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from engine.assembly.dense import build_dense, build_proposals
from engine.assembly.device import build_device
from engine.assembly.two_stage import build_roi_heads
from engine.config.parts import body_name, dense_name, neck_name
from engine.errors import InputError, shown
from engine.layers.norm import NORMS
from engine.log import get_logger
from engine.modeling.backbone import Backbone
from engine.modeling.bodies import BODIES, is_frozen, strides_of
from engine.modeling.bodies.resnet import RESNETS, Deformable
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.necks import NECKS
from engine.registry import call_with, import_modules, lookup, taken_by

NORM_OF_FUNC = {"FixedBatchNorm": "FrozenBN", "BatchNorm": "BN", "GN": "GN"}
"""Ending of the reference's STEM_FUNC and TRANS_FUNC -> our norm."""
LEAST_STRIDED_CHANNELS = 16
"""Below it oneDNN corrupts memory, see `_breaks_channels_last`."""
FPN_NECKS = ("FPN", "FPN-RETINANET", "PAFPN", "DyHead")
"""Names in `NECKS` to which the keys of `MODEL.FPN` apply: the pyramid, and those built on it."""


def build_model(cfg: CfgNode, class_names: Sequence[str] = ()) -> GeneralizedRCNN:
    """The model that `cfg` describes, on its device, with random weights.

    Args:
        cfg: a configuration; `MODEL.WEIGHT` is not read here, see `load_weights`.
        class_names: names of the foreground classes. Needed where NUM_CLASSES is 0, since they then give the count.

    Raises:
        InputError: a body, a rule or a number of classes that cannot be built.
    """
    import_modules(cfg.IMPORTS)
    backbone = build_backbone(cfg)
    num_foreground = num_classes(cfg, class_names)
    if cfg.MODEL.RPN_ONLY:
        rpn, roi_heads = build_dense(cfg, backbone, num_foreground), None
    else:
        rpn = build_proposals(cfg, backbone)
        roi_heads = build_roi_heads(cfg, backbone, num_foreground)
    if cfg.TEST.SCORE_VOTING:
        last = roi_heads or rpn  # never the proposals
        last.selection = replace(last.selection, vote_sigma=cfg.TEST.SCORE_VOTING)
    model = GeneralizedRCNN(backbone, rpn, roi_heads, cfg.DATALOADER.SIZE_DIVISIBILITY, class_names)
    device = build_device(cfg)
    if cfg.MODEL.USE_SYNCBN and device.type == "cuda":  # see `warn_without_gpu`
        model = with_synchronised_norms(model)
    model.to(device)
    if cfg.MODEL.CHANNELS_LAST and not (device.type == "cpu" and _breaks_channels_last(model)):
        model.to(memory_format=torch.channels_last)
    return model


def with_synchronised_norms(module: nn.Module, name: str = "the model") -> nn.Module:
    """`module` with its trainable batch norms replaced by ones that average over all processes; frozen parts stay.

    Raises:
        InputError: a batch norm of another package that computes more than a batch norm, which would get lost.
    """
    if is_frozen(module):
        return module
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if type(module).forward is not nn.BatchNorm2d.forward and not isinstance(module, nn.SyncBatchNorm):
            raise InputError(
                f"MODEL.USE_SYNCBN: {name} is a {type(module).__name__}, which cannot be replaced; set it to False"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child_name, child in module.named_children():
        setattr(module, child_name, with_synchronised_norms(child, child_name))
    return module


def _breaks_channels_last(model: nn.Module) -> bool:
    """Whether torch would write past its memory when it trains `model` in that layout on a CPU; the log then says why.

    See docs/decisions/channels_last.md.
    """
    for name, module in model.named_modules():
        is_strided = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1)
        if is_strided and module.weight.shape[1] < LEAST_STRIDED_CHANNELS:
            get_logger(__name__).info(  # only the main process logs this
                "MODEL.CHANNELS_LAST is off: torch on a CPU needs %d input channels or more for the strided 1x1"
                " convolution %s, which has %d",
                LEAST_STRIDED_CHANNELS,
                name,
                module.weight.shape[1],
            )
            return True
    return False


def class_count(cfg: CfgNode) -> tuple[str, int]:
    """The key that counts the classes of the last stage, background included, and its value (0: the data tells)."""
    if not cfg.MODEL.RPN_ONLY:
        return "MODEL.ROI_BOX_HEAD.NUM_CLASSES", cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    counts = {
        "ATSS": ("MODEL.ATSS.NUM_CLASSES", cfg.MODEL.ATSS.NUM_CLASSES),
        "RETINANET": ("MODEL.RETINANET.NUM_CLASSES", cfg.MODEL.RETINANET.NUM_CLASSES),
        "FCOS": ("MODEL.FCOS.NUM_CLASSES", cfg.MODEL.FCOS.NUM_CLASSES),
    }
    return counts.get(dense_name(cfg), ("MODEL.DENSE.NUM_CLASSES", cfg.MODEL.DENSE.NUM_CLASSES))


def num_classes(cfg: CfgNode, class_names: Sequence[str] = ()) -> int:
    """K, the number of foreground classes.

    Raises:
        InputError: the configuration and the class names disagree, or neither knows.
    """
    key, configured = class_count(cfg)
    if not configured and not class_names:
        raise InputError(
            f"{key} is 0, but neither a data set nor a checkpoint names the classes; set it to their number + 1 (it "
            "counts the background)"
        )
    if configured and class_names and configured - 1 != len(class_names):
        raise InputError(
            f"{key} is {configured} (background included), but the data set or the checkpoint has {len(class_names)} "
            f"classes: set it to {len(class_names) + 1}, or to 0 to take theirs"
        )
    return configured - 1 if configured else len(class_names)


def build_backbone(cfg: CfgNode) -> Backbone:
    """The body of `MODEL.BACKBONE` and the neck of `MODEL.NECK`.

    Where the NAME of either is "", `MODEL.BACKBONE.CONV_BODY`, the reference's key, names it.

    Raises:
        InputError: a name, an argument or a norm that is not known, or channels and strides that differ in number.
    """
    neck = neck_name(cfg)
    if not neck:
        raise InputError(
            f"MODEL.BACKBONE.CONV_BODY {cfg.MODEL.BACKBONE.CONV_BODY} cannot be built: write BODY-FPN-RETINANET or "
            f"BODY-FPN, where BODY is {', '.join(RESNETS)} or a body of your own; or set MODEL.BACKBONE.NAME and "
            "MODEL.NECK.NAME"
        )
    old_key = "MODEL.BACKBONE.CONV_BODY"
    body = build_body(cfg, body_name(cfg), "MODEL.BACKBONE.NAME" if cfg.MODEL.BACKBONE.NAME else old_key)
    return Backbone(body, build_neck(cfg, neck, "MODEL.NECK.NAME" if cfg.MODEL.NECK.NAME else old_key, body))


def build_body(cfg: CfgNode, name: str, key: str) -> nn.Module:
    """A body of `BODIES`; `key` is the key that holds its name.

    `MODEL.BACKBONE.ARGS` takes precedence over the other keys.
    """
    part = _body_part(name, key)
    norm_name = cfg.MODEL.RESNETS.NORM or _norm_of(cfg.MODEL.RESNETS.TRANS_FUNC)
    lookup(NORMS, norm_name, "MODEL.RESNETS.NORM")
    freeze_at = cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT
    # Offered to every body: any body may have norms and parts to freeze.
    offers: dict[str, Any] = {"norm": norm_name, "norm_name": norm_name, "freeze_at": freeze_at}
    offers["in_channels"] = cfg.INPUT.CHANNELS
    wanted = cfg.MODEL.BACKBONE.ARGS.get("in_channels", cfg.INPUT.CHANNELS)
    if wanted != cfg.INPUT.CHANNELS:
        raise InputError(
            f"MODEL.BACKBONE.ARGS.in_channels is {shown(wanted)}, but the images have INPUT.CHANNELS "
            f"{cfg.INPUT.CHANNELS}; remove the argument, or change INPUT.CHANNELS"
        )
    if cfg.INPUT.CHANNELS != 3 and not taken_by(part, {"in_channels": 0}):
        raise InputError(
            f"INPUT.CHANNELS is {cfg.INPUT.CHANNELS}, but {name} takes no argument in_channels; give it one, or use "
            f"one of {', '.join(RESNETS)}"
        )
    if freeze_at and not taken_by(part, {"freeze_at": 0}):
        get_logger(__name__).warning(  # not an error: 2 is the default, and every resolved configuration states it
            "MODEL.BACKBONE.FREEZE_CONV_BODY_AT is %d, but %s takes no argument freeze_at, so all of it is trained; "
            "set it to 0, or give the body the argument",
            freeze_at,
            name,
        )
    if name in RESNETS:
        # Not offered to other bodies, where these names may mean something else.
        offers |= {
            "stem_channels": cfg.MODEL.RESNETS.STEM_OUT_CHANNELS,
            "res2_channels": cfg.MODEL.RESNETS.RES2_OUT_CHANNELS,
            "groups": cfg.MODEL.RESNETS.NUM_GROUPS,
            "width_per_group": cfg.MODEL.RESNETS.WIDTH_PER_GROUP,
            "stride_in_1x1": cfg.MODEL.RESNETS.STRIDE_IN_1X1,
            "res5_dilation": cfg.MODEL.RESNETS.RES5_DILATION,
        }
    deformable = Deformable(
        cfg.MODEL.RESNETS.STAGE_WITH_DCN, cfg.MODEL.RESNETS.WITH_MODULATED_DCN, cfg.MODEL.RESNETS.DEFORMABLE_GROUPS
    )
    given = taken_by(part, {"deformable": deformable})
    if any(deformable.stages) and not given:
        raise InputError(
            f"MODEL.RESNETS.STAGE_WITH_DCN is {tuple(deformable.stages)}, but {name} takes no argument deformable; "
            "remove the key"
        )
    body = call_with(part, name, dict(cfg.MODEL.BACKBONE.ARGS), "MODEL.BACKBONE.ARGS", given, offers)
    strides = strides_of(body)
    if len(strides) != len(body.out_channels):
        raise InputError(
            f"{key}: {name} has {len(body.out_channels)} out_channels, but {len(strides)} strides; "
            "it must have one of each per map"
        )
    return body


def _body_part(name: str, key: str) -> Callable[..., nn.Module]:
    """What is registered as `name`; timm/resnet18d is the part timm with resnet18d as its first argument."""
    family, _, model = name.partition("/")
    if model and name not in BODIES and family in BODIES:
        return partial(BODIES.get(family), model)
    return lookup(BODIES, name, key)


def build_neck(cfg: CfgNode, name: str, key: str, body: nn.Module) -> nn.Module:
    """A neck of `NECKS` on the maps of `body`; `key` is the key that holds its name.

    `MODEL.NECK.ARGS` takes precedence over the other keys.
    """
    part = lookup(NECKS, name, key)
    offers = {"out_channels": cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS}
    if name in FPN_NECKS:
        offers |= {
            "use_gn": cfg.MODEL.FPN.USE_GN,
            "use_relu": cfg.MODEL.FPN.USE_RELU,
            "use_c5": cfg.MODEL.RETINANET.USE_C5,
            "relu_before_p7": cfg.MODEL.FPN.RELU_BEFORE_P7,
        }
    given = {"in_channels": tuple(body.out_channels), "strides": strides_of(body)}
    return call_with(part, name, dict(cfg.MODEL.NECK.ARGS), "MODEL.NECK.ARGS", given, offers)


def _norm_of(trans_func: str) -> str:
    """The norm that the reference's name of a block implies: BottleneckWithGN -> GN."""
    for ending, name in NORM_OF_FUNC.items():
        if trans_func.endswith(f"With{ending}"):
            return name
    raise InputError(f"MODEL.RESNETS.TRANS_FUNC {trans_func} is not known: set MODEL.RESNETS.NORM instead")
