"""The task-aligned head (TOOD, Feng et al., 2021, section 3.1): one tower for both tasks, and boxes that are moved to
where the head finds them better predicted.

Shapes: N images, L levels, R anchors per image (one per cell), S convolutions, K classes, C channels, H W.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers.deform_conv import deformed
from engine.layers.norm import norm
from engine.modeling.anchors import AnchorGrid
from engine.modeling.box_coding import BoxCoder
from engine.modeling.dense.stage import HeadOutputs
from engine.modeling.dense.towers import Scale, flatten

MAX_LOG_DISTANCE = math.log(1 << 14)
"""Limit of the logarithm of a distance in strides: above it exp() would overflow, and no image is larger."""


def logit_of_mean(a: Tensor, b: Tensor) -> Tensor:
    """The logit of the geometric mean of sigmoid(a) and sigmoid(b), finite and with finite gradients for all of them.

    With p = sqrt(sigmoid(a) sigmoid(b)), 1 - p = (1 - p^2) / (1 + p), and in 1 - p^2 the ones cancel:
    1 - p^2 = (e^-a + e^-b + e^-(a+b)) p^2. So logit(p) = log(1 + p) - log(p) - log(e^-a + e^-b + e^-(a+b)).

    Args:
        a, b: float32 logits of shapes that broadcast.

    Example:
        >>> logits = torch.tensor([2.0, 200.0])
        >>> [round(logit, 4) for logit in logit_of_mean(logits, logits).tolist()]
        [2.0, 200.0]
    """
    log_p = (F.logsigmoid(a) + F.logsigmoid(b)) / 2
    return log_p.exp().log1p() - log_p + a - F.softplus(F.softplus(a) - b)


class TaskDecomposition(nn.Module):
    """Chooses among the layers of the tower what one task needs (eq. 1-3): (N, SC, H, W) -> (N, C, H, W).

    The attention of a layer is one number per image, so scaling the layer's part of the 1x1 convolution by it is the
    same as scaling its maps, and needs no copy of them.
    """

    def __init__(self, channels: int, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        hidden = max(channels // 8, 1)
        self.layer_attention = nn.Sequential(
            nn.Conv2d(channels * num_layers, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, num_layers, 1)
        )
        self.reduction = nn.Conv2d(channels * num_layers, channels, 1, bias=False)
        self.norm = norm("GN", channels)

    def forward(self, layers: Tensor, pooled: Tensor) -> Tensor:
        """`layers` (N, SC, H, W), the outputs of all convolutions, and their global means `pooled` (N, SC, 1, 1)."""
        attention = self.layer_attention(pooled).sigmoid().flatten(1)  # (N, S)
        channels = self.reduction.out_channels
        weight = self.reduction.weight.view(1, channels, self.num_layers, -1) * attention[:, None, :, None]
        reduced = torch.bmm(weight.flatten(2).to(layers.dtype), layers.flatten(2))  # (N, C, SC) x (N, SC, HW)
        return F.relu(self.norm(reduced.unflatten(2, layers.shape[2:])), inplace=True)  # (N, C, H, W)


class TOODHead(nn.Module):
    """A tower whose convolutions both tasks share, a decomposition for each, and the alignment of each prediction.

    Args:
        channels: C of every level.
        num_classes: K, without background.
        coder: what the four numbers of the box branch say of the anchor.
        num_levels: L.
        num_convs: S.
        is_exponential: the box branch predicts logarithms (of distances in strides).
        prior: score of every class before training.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        coder: BoxCoder,
        num_levels: int = 5,
        num_convs: int = 6,
        is_exponential: bool = True,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_classes, self.coder, self.is_exponential = num_classes, coder, is_exponential
        self.inter_convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm("GN", channels), nn.ReLU(inplace=True)
            )
            for _ in range(num_convs)
        )
        self.cls_decomp = TaskDecomposition(channels, num_convs)
        self.reg_decomp = TaskDecomposition(channels, num_convs)
        self.cls_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.cls_prob = _alignment(channels * num_convs, max(channels // 4, 1), 1)
        self.reg_offset = _alignment(channels * num_convs, max(channels // 4, 1), 4 * 2)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        self._init_weights(prior)

    def _init_weights(self, prior: float) -> None:
        """As the authors do: boxes start where their own cell predicts them, and all scores are `prior`."""
        small = (*self.cls_decomp.layer_attention, *self.reg_decomp.layer_attention, *self.reg_offset)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001 if module in small else 0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.reg_offset[-1].weight)
        # The score is the geometric mean of two sigmoids.
        for module in (self.cls_logits, self.cls_prob[-1]):
            nn.init.constant_(module.bias, -math.log((1 - prior) / prior))

    def forward(self, features: list[Tensor], anchors: AnchorGrid) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> logits of the scores and boxes (N, R, 4), pixels, of all levels, float32."""
        logits, boxes = [], []
        for scale, feature, level in zip(self.scales, features, anchors.boxes_per_level, strict=True):
            layers = self.layers(feature)  # (N, SC, H, W)
            pooled = layers.mean((2, 3), keepdim=True)  # (N, SC, 1, 1)
            cls = self.cls_logits(self.cls_decomp(layers, pooled)).float()
            reg = scale_codes(self.bbox_pred(self.reg_decomp(layers, pooled)).float(), scale, self.is_exponential)
            logits.append(flatten(logit_of_mean(cls, self.cls_prob(layers).float()), self.num_classes))
            own = self.coder.decode(flatten(reg, 4).flatten(0, 1), level.repeat(reg.shape[0], 1))  # (N HW, 4)
            own = own.view(reg.shape[0], *reg.shape[2:], 4).permute(0, 3, 1, 2)  # (N, 4, H, W)
            boxes.append(flatten(sample_boxes(own, self.reg_offset(layers).float()), 4))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(boxes, 1))

    def layers(self, feature: Tensor) -> Tensor:
        """The outputs of all convolutions of the tower, joined: (N, C, H, W) -> (N, SC, H, W)."""
        outputs = []
        for conv in self.inter_convs:
            feature = conv(feature)
            outputs.append(feature)
        return torch.cat(outputs, 1)


def scale_codes(codes: Tensor, scale: nn.Module, is_exponential: bool) -> Tensor:
    """The outputs (N, 4, H, W) of the box branch, or their exponentials, times the factor of the level."""
    return scale(codes.clamp(max=MAX_LOG_DISTANCE).exp() if is_exponential else codes)


def sample_boxes(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Each side of a box from a place of its own, near the cell (eq. 6).

    Sides are interpolated between the four cells around the place; outside the map they are 0. A box that is then
    inside out stays as the cell itself predicts it.

    Args:
        boxes: (N, 4, H, W) that each cell predicts, pixels.
        offsets: (N, 8, H, W) dy and dx for each of x1, y1, x2, y2, cells.
    """
    with torch.autocast(boxes.device.type, enabled=False):
        ones = boxes.new_ones(4, 1, 1, 1)
        moved = deformed(boxes.contiguous(), offsets.contiguous(), ones)  # (N, 4, H, W)
    is_inside_out = (moved[:, 0:1] > moved[:, 2:3]) | (moved[:, 1:2] > moved[:, 3:4])  # (N, 1, H, W)
    return torch.where(is_inside_out, boxes, moved)


def _alignment(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, out_channels, 3, padding=1)
    )
