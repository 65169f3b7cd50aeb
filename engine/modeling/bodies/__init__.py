"""Bodies by name, for `MODEL.BACKBONE.CONV_BODY: NAME-FPN` or `NAME-FPN-RETINANET`; R-18 to R-152 are `resnet.ResNet`.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from engine.registry import Registry

BODIES = Registry("BODIES")
"""(norm_name: str, freeze_at: int) -> body.

`norm_name` is a name in `layers.norm.NORMS`, `freeze_at` the number of leading parts whose weights stay fixed. A body
takes images (N, 3, H, W), gives the list C2, C3, C4, C5 at strides 4, 8, 16, 32 and has their `out_channels`.
"""
