"""The tested bodies beside their cost: the table in docs/models.md.

    python benchmarks/bodies.py [--size 320] [--body NAME ...]

Parameters and multiply-adds are those of the body alone, without its classifier, for one image of `--size` x `--size`,
as tools/model_complexity.py counts them. `timm/NAME` needs timm.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from yacs.config import CfgNode

from engine import build_model, get_cfg
from engine.analysis.complexity import complexity

BODIES = (
    *("R-18", "R-50", "EfficientNet-Lite0", "EfficientNet-Lite1", "EfficientNet-Lite2"),
    *("MobileNetV3-Small", "MobileNetV3-Large", "ConvNeXt-Tiny", "Swin-T", "Swin-V2-T"),
    *("timm/resnet18d", "timm/mobilenetv4_conv_small", "timm/efficientnet_b0", "timm/convnextv2_atto"),
    *("timm/swin_tiny_patch4_window7_224", "timm/hrnet_w18_small"),
)


@dataclass(frozen=True)
class BodyCost:
    """Parameters, and multiply-adds for one image."""

    parameters: int
    operations: int

    def row(self, name: str) -> str:
        """The row of the table: numbers in millions and in 10^9."""
        return f"| `{name}` | {self.parameters / 1e6:.2f} | {self.operations / 1e9:.2f} |"


def narrow_detector(name: str) -> CfgNode:
    """ATSS with 32 channels on the body `name`, all of it trainable, from random weights, on the CPU."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.RPN_ONLY, cfg.MODEL.ATSS_ON, cfg.MODEL.ATSS.NUM_CLASSES = "cpu", True, True, 3
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = name, 0
    cfg.MODEL.NECK.NAME, cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS = "FPN-RETINANET", 32
    if name in ("R-18", "R-50"):
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False  # as torchvision's weights expect
    return cfg


def cost_of(name: str, size: int = 320) -> BodyCost:
    """The cost of the body `name` for one image of `size` x `size`."""
    modules = complexity(build_model(narrow_detector(name)), (size, size)).modules
    body = next(each for each in modules if each.name == "backbone.body")
    return BodyCost(body.parameters, body.operations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--body", nargs="+", default=BODIES)
    args = parser.parse_args()
    print(f"| Body | Parameters (10^6) | GMAC at {args.size} x {args.size} |\n|---|---|---|")
    for name in args.body:
        print(cost_of(name, args.size).row(name), flush=True)


if __name__ == "__main__":
    main()
