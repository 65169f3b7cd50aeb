"""From pooled regions to class logits and boxes: extractors by name (`ROI_BOX_HEAD.FEATURE_EXTRACTOR`), and one stage.

Parameter names follow the reference: `feature_extractor.fc6`, `feature_extractor.xconvs.0`, `predictor.cls_score`, ...

Shapes: P regions, K classes, D = 1 (class-agnostic) or K boxes per region, C channels, S cells per side, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import distributed
from engine.layers.norm import norm
from engine.modeling.box_coding import BoxCoder
from engine.registry import Registry

FEATURE_EXTRACTORS = Registry("FEATURE_EXTRACTORS")
"""(shape: `ExtractorShape`) -> module with `out_features`, by the name in `MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR`."""


@dataclass(frozen=True)
class ExtractorShape:
    """Sizes of an extractor; each takes the ones it has.

    Attributes:
        channels: C.
        resolution: S.
        fc_dim: F.
        conv_dim, num_convs, dilation: of its convolutions.
        use_gn: group norm after each layer, unless `norm_name` says which.
        norm_name: name in `layers.norm.NORMS`, "" for group norm or none.
    """

    channels: int
    resolution: int
    fc_dim: int = 1024
    conv_dim: int = 256
    num_convs: int = 4
    dilation: int = 1
    use_gn: bool = False
    norm_name: str = ""

    @property
    def norm(self) -> str:
        """Name of the norm after each layer, "" for none."""
        return self.norm_name or ("GN" if self.use_gn else "")


class LinearOfMaps(nn.Linear):
    """A linear layer whose outputs (P, F, 1, 1) are maps of one cell, as norms expect them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., None, None]


def _fc(in_features: int, out_features: int, norm_name: str = "") -> nn.Module:
    """(P, in_features) -> (P, out_features), or (P, out_features, 1, 1) with a norm."""
    layer = (LinearOfMaps if norm_name else nn.Linear)(in_features, out_features, bias=not norm_name)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if norm_name:
        return nn.Sequential(layer, norm(norm_name, out_features))
    nn.init.zeros_(layer.bias)
    return layer


@FEATURE_EXTRACTORS.register("FPN2MLPFeatureExtractor")
class FPN2MLPFeatureExtractor(nn.Module):
    """Two fully connected layers (Lin et al., 2017: FPN)."""

    def __init__(self, shape: ExtractorShape) -> None:
        super().__init__()
        self.fc6 = _fc(shape.channels * shape.resolution**2, shape.fc_dim, shape.norm)
        self.fc7 = _fc(shape.fc_dim, shape.fc_dim, shape.norm)
        self.out_features = shape.fc_dim

    def forward(self, pooled: Tensor) -> Tensor:
        """(P, C, S, S) -> (P, F)."""
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1))).flatten(1))).flatten(1)


@FEATURE_EXTRACTORS.register("FPNXconv1fcFeatureExtractor")
class FPNXconv1fcFeatureExtractor(nn.Module):
    """Some 3x3 convolutions and a fully connected layer (Wu & He, 2018: with group norm), which has no norm."""

    def __init__(self, shape: ExtractorShape) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = shape.channels
        for _ in range(shape.num_convs):
            conv = nn.Conv2d(
                channels, shape.conv_dim, 3, padding=shape.dilation, dilation=shape.dilation, bias=not shape.norm
            )
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            layers += [conv, norm(shape.norm, shape.conv_dim)] if shape.norm else [conv]
            layers.append(nn.ReLU(inplace=True))
            channels = shape.conv_dim
        self.xconvs = nn.Sequential(*layers)
        self.fc6 = _fc(channels * shape.resolution**2, shape.fc_dim)
        self.out_features = shape.fc_dim

    def forward(self, pooled: Tensor) -> Tensor:
        """(P, C, S, S) -> (P, F)."""
        return F.relu(self.fc6(self.xconvs(pooled).flatten(1)))


class FPNPredictor(nn.Module):
    """Class logits and deltas from features (P, F).

    Args:
        in_features: F.
        num_classes: K.
        class_agnostic: one box for all classes.
    """

    def __init__(self, in_features: int, num_classes: int, class_agnostic: bool) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_features, num_classes + 1)
        self.bbox_pred = nn.Linear(in_features, 4 if class_agnostic else 4 * num_classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, K + 1) with the background last, deltas (P, D, 4)."""
        return self.cls_score(features), self.bbox_pred(features).unflatten(1, (-1, 4))


@dataclass
class RegionTargets:
    """The regions of a batch and what they learn; they keep the order of their images.

    Attributes:
        boxes: (P_i, 4) regions of each image.
        labels: (P,) int64 in 0..K, K is the background.
        gt_boxes: (P, 4), of no meaning for the background.
        is_gt: (P,) bool, the region is itself a ground truth box.
    """

    boxes: list[Tensor]
    labels: Tensor
    gt_boxes: Tensor
    is_gt: Tensor


class BoxHead(nn.Module):
    """One stage: features, predictions, what they mean and cost.

    Args:
        feature_extractor: (P, C, S, S) -> (P, F).
        predictor: (P, F) -> logits (P, K + 1), deltas (P, D, 4).
        coder: what the deltas mean.
        cls_loss, box_loss: from `roi_losses`.
        cls_loss_weight, box_loss_weight: their factors.
    """

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: nn.Module,
        coder: BoxCoder,
        cls_loss: Callable[[Tensor, Tensor], Tensor],
        box_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        cls_loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.feature_extractor, self.predictor = feature_extractor, predictor
        self.coder = coder
        self.cls_loss, self.box_loss = cls_loss, box_loss
        self.cls_loss_weight, self.box_loss_weight = cls_loss_weight, box_loss_weight

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(P, C, S, S) -> logits (P, K + 1), deltas (P, D, 4), in float32."""
        logits, deltas = self.predictor(self.feature_extractor(pooled))
        return logits.float(), deltas.float()

    def decode(self, deltas: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Boxes (P, 4) that `deltas` (P, D, 4) mean for regions `boxes` (P, 4) of classes `labels` (P,) in 0..K-1."""
        return self.coder.decode(self._of_class(deltas, labels), boxes)

    def _of_class(self, deltas: Tensor, labels: Tensor) -> Tensor:
        if deltas.shape[1] == 1:
            return deltas[:, 0]
        return deltas[torch.arange(deltas.shape[0], device=deltas.device), labels]

    def losses(self, logits: Tensor, deltas: Tensor, regions: RegionTargets) -> dict[str, Tensor]:
        """Class loss over all regions, box loss over those of the foreground, both divided by the number of regions."""
        is_object = regions.labels < logits.shape[1] - 1
        boxes, gt_boxes = torch.cat(regions.boxes)[is_object], regions.gt_boxes[is_object]
        deltas = self._of_class(deltas[is_object], regions.labels[is_object])
        gt_deltas = self.coder.encode(gt_boxes, boxes)
        loss_cls = self.cls_loss(logits, regions.labels).sum()
        loss_box = self.box_loss(deltas, gt_deltas, self.coder.decode(deltas, boxes), gt_boxes).sum()
        # Not by the positives: each box then weighs the same in batches of few objects and of many.
        num = distributed.all_reduce_mean(logits.new_tensor(float(len(logits)))).clamp(min=1)
        return {
            "loss_classifier": self.cls_loss_weight * loss_cls / num,
            "loss_box_reg": self.box_loss_weight * loss_box / num,
        }
