"""The meta-architecture."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from engine.structures import Detections, ImageBatch, Targets


class GeneralizedRCNN(nn.Module):
    """A backbone, a dense stage (named `rpn` as in the reference: with a second stage it proposes regions), RoI heads.

    Args:
        backbone: images (N, 3, H, W) -> pyramid.
        rpn: dense stage, (features, images, targets) -> losses or detections; with a second stage its `propose` gives
            proposals and losses.
        roi_heads: second stage, (features, proposals, targets) -> losses or detections; None for a detector of one.
        size_divisibility: side of the padded batch when images come as a list.
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

    def forward(
        self, images: ImageBatch | Sequence[Tensor], targets: list[Targets] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """Named losses in training, one `Detections` an image otherwise.

        Args:
            images: a batch, or float images (3, H_i, W_i), normalised.
            targets: one an image; needed in training only.
        """
        images = self._batch(images)
        features = self.backbone(images.tensor)
        if self.roi_heads is None:
            return self.rpn(features, images, targets)
        proposals, proposal_losses = self.rpn.propose(features, images, targets)
        found = self.roi_heads(features, proposals, targets)
        return {**proposal_losses, **found} if self.training else found

    def candidates(self, images: ImageBatch | Sequence[Tensor]) -> list[Detections]:
        """The scored boxes of each image that `forward` would suppress and cut, for who merges several passes first."""
        images = self._batch(images)
        features = self.backbone(images.tensor)
        if self.roi_heads is None:
            return self.rpn.candidates(features, images)
        proposals, _ = self.rpn.propose(features, images)
        return self.roi_heads.candidates(features, proposals)

    def _batch(self, images: ImageBatch | Sequence[Tensor]) -> ImageBatch:
        return images if isinstance(images, ImageBatch) else ImageBatch.from_list(images, self.size_divisibility)
