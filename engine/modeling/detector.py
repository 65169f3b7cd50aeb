"""The meta-architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.modeling.selection import Selection
from engine.structures import Detections, ImageBatch, Targets

Images = ImageBatch | Sequence[Tensor]
"""A batch, or float images (C, H_i, W_i), normalised."""


class GeneralizedRCNN(nn.Module):
    """A backbone, a dense stage (named `rpn` as in the reference: with a second stage it proposes regions), RoI heads.

    It has three verbs: `losses`, `candidates` and `detect`. None depends on `train()` or `eval()`, except through
    layers such as norms and dropout. The last two keep no state, so threads may share a model in evaluation mode.

    Args:
        backbone: images (N, C, H, W) -> pyramid.
        rpn: dense stage, see `dense.stage.DenseStage` and `two_stage.rpn.RPN`.
        roi_heads: second stage, see `two_stage.roi_heads`; None for a detector of one stage.
        size_divisibility: the padded height and width are multiples of it when images come as a list.
        class_names: names of labels 0..K-1, where known.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: nn.Module,
        roi_heads: nn.Module | None = None,
        size_divisibility: int = 0,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.size_divisibility = size_divisibility
        self.class_names = list(class_names)

    @property
    def selection(self) -> Selection:
        """Which candidates become detections, as the last stage says."""
        return (self.rpn if self.roi_heads is None else self.roi_heads).selection

    def forward(self, images: Images, targets: list[Targets] | None = None) -> dict[str, Tensor] | list[Detections]:
        """`losses` in training mode, `detect` otherwise."""
        return self.losses(images, targets) if self.training else self.detect(images)

    def losses(self, images: Images, targets: list[Targets]) -> dict[str, Tensor]:
        """Named losses of a batch, scalars; `targets` has one entry per image."""
        images = self._batch(images)
        features = self.backbone(images.tensor)
        outputs, anchors = self.rpn(features, images.padded_size)
        if self.roi_heads is None:
            return self.rpn.losses(outputs, anchors, targets)
        losses = self.rpn.losses(outputs, anchors, [_as_objects(target) for target in targets])
        proposals = self.rpn.propose(outputs, anchors, images.sizes, for_losses=True)
        return losses | self.roi_heads.losses(features, proposals, targets)

    def candidates(self, images: Images) -> list[Detections]:
        """The scored boxes of each image before suppression, for whoever merges several passes first."""
        images = self._batch(images)
        features = self.backbone(images.tensor)
        outputs, anchors = self.rpn(features, images.padded_size)
        if self.roi_heads is None:
            return self.rpn.candidates(outputs, anchors, images.sizes)
        proposals = self.rpn.propose(outputs, anchors, images.sizes)
        return self.roi_heads.candidates(features, proposals)

    def detect(self, images: Images) -> list[Detections]:
        """Detections of each image, by falling score, in pixels of the image given (not of the padded batch)."""
        return [self.selection(candidates) for candidates in self.candidates(images)]

    def _batch(self, images: Images) -> ImageBatch:
        return images if isinstance(images, ImageBatch) else ImageBatch.from_list(images, self.size_divisibility)


def _as_objects(targets: Targets) -> Targets:
    """The same boxes, all of the one class, "object", that a first stage knows."""
    return replace(targets, labels=torch.zeros_like(targets.labels))
