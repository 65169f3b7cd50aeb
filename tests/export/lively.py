"""Small models with random weights that find many objects, of scores far apart, as a trained one would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.assembly.model import build_model
from engine.config import load_config
from engine.layers.deform_conv import DeformConv2d
from engine.modeling.detector import GeneralizedRCNN

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHT": "",
    "MODEL.CHANNELS_LAST": "False",
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "16",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "16",
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": "32",
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": "0",
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": "32",
    "DATALOADER.SIZE_DIVISIBILITY": "32",
    "MODEL.ATSS.NUM_CONVS": "1",
    "MODEL.RETINANET.NUM_CONVS": "1",
    "MODEL.FCOS.NUM_CONVS": "1",
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": "150",
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": "60",
}
SPREADS = {
    "cls_logits": 2.0,
    "cls_score": 2.5,
    "centerness": 1.5,
    "bbox_pred": 1.0,
    "rpn.bbox_pred": 0.3,
    "offset": 0.25,
}
"""Standard deviation of what layers of a name give, logits and deltas and pixels; the most specific name counts.

Features of noise differ from pixel to pixel: with offsets of several pixels, the rounding of float32 alone would change
what a model finds.
"""


def lively_model(path: str, num_classes: int = 3, seed: int = 0, **settings: str) -> GeneralizedRCNN:
    """The model of a configuration file, narrowed to R-18 with few channels, in evaluation mode.

    Every prediction layer is scaled so that its outputs spread as `SPREADS` says.
    """
    torch.manual_seed(seed)
    cfg = load_config(CONFIGS / path)
    body = cfg.MODEL.BACKBONE.CONV_BODY.replace("R-50", "R-18")
    classes = {f"MODEL.{group}.NUM_CLASSES": str(num_classes + 1) for group in ("ATSS", "RETINANET", "FCOS")}
    classes["MODEL.ROI_BOX_HEAD.NUM_CLASSES"] = str(num_classes + 1)
    overrides = SMALL | classes | {"MODEL.BACKBONE.CONV_BODY": body} | settings
    cfg = load_config(CONFIGS / path, [word for pair in overrides.items() for word in pair])
    model = build_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.offset.weight)
    images = 70 * torch.randn(2, cfg.INPUT.CHANNELS, 128, 128)  # as spread as pixels are
    with torch.no_grad():
        model.backbone.train()(images)
        hooks = [
            module.register_forward_hook(_spread(_spread_of(name)))
            for name, module in model.eval().named_modules()
            if _spread_of(name) and isinstance(module, nn.Conv2d | nn.Linear)
        ]
        model.detect(list(images))
        for hook in hooks:
            hook.remove()
    return model


def _spread_of(name: str) -> float | None:
    parts = set(name.split("."))
    fitting = [key for key in SPREADS if set(key.split(".")) <= parts]
    return SPREADS[max(fitting, key=len)] if fitting else None


def _spread(target: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Scale the layer to `target` once: a head shared by levels keeps what the first one needs."""
        if hasattr(module, "is_spread"):
            return output
        module.is_spread = True
        bias = module.bias if module.bias is not None else torch.zeros(output.shape[1])
        bias = bias.view(-1, *[1] * (output.dim() - 2))
        factor = target / (output - bias).std()
        module.weight.mul_(factor)
        return (output - bias) * factor + bias

    return hook
