from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.assembly.model import build_model
from engine.config import load_config
from engine.modeling.dense.stage import HeadOutputs
from engine.structures import Detections, ImageBatch, Targets

LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])
"""Added to a box in the reference's inclusive pixels, it gives the box we store."""


def flatten_levels(maps: list[torch.Tensor], per_anchor: int) -> torch.Tensor:
    """[(N, per_anchor, H_l, W_l)] of one anchor a cell -> (N, R, per_anchor)."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, per_anchor) for m in maps], dim=1)


class GoldenCase:
    """One small model of the reference with its recorded tensors, and our model with the same weights."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.data = torch.load(path, weights_only=True)
        config = folder / f"{path.stem}.yaml"
        config.write_text(self.data["config_yaml"])
        self.cfg = load_config(config)
        self.model = build_model(self.cfg)
        weights = {k: v for k, v in self.data["state_dict"].items() if "cell_anchors" not in k}
        self.model.load_state_dict(weights, strict=True)
        self.batch = ImageBatch.from_list(self.data["images_normalized"], self.model.size_divisibility)
        self.anchors = self.model.rpn.anchor_generator(self.data["fpn_features"])

    def head_outputs(self, requires_grad: bool = False) -> HeadOutputs:
        """The reference's own head outputs, so that what follows is tested apart from the convolutions."""
        logits = flatten_levels(self.data["head_cls_logits"], self.model.rpn.head.num_classes)
        codes = flatten_levels(self.data["head_bbox_reg"], 4)
        centerness = flatten_levels(self.data["head_centerness"], 1)[..., 0]
        return HeadOutputs(*(x.clone().requires_grad_(requires_grad) for x in (logits, codes, centerness)))

    def targets(self) -> list[Targets]:
        return [
            Targets(boxes + LAST_PIXEL, labels - 1, torch.zeros(len(labels), dtype=torch.bool), i, size)
            for i, (boxes, labels, size) in enumerate(
                zip(self.data["gt_boxes"], self.data["gt_labels"], self.batch.sizes, strict=True)
            )
        ]


@pytest.fixture(scope="module", params=["small_box", "small_point", "small_dcn_box"])
def golden(request: pytest.FixtureRequest, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> GoldenCase:
    return GoldenCase(golden_dir / "atss" / f"{request.param}.pth", tmp_path_factory.mktemp("golden"))


def assert_same_detections(
    ours: Detections,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    box_tolerance: float = 1e-4,
    score_tolerance: float = 1e-4,
) -> None:
    """Detections as sets: of each label the same scores in falling order, and their boxes."""
    assert ours.labels.bincount(minlength=1).tolist() == labels.bincount(minlength=1).tolist()
    for label in labels.unique():
        mine, theirs = ours.labels == label, labels == label
        my_order, their_order = (s.argsort(descending=True, stable=True) for s in (ours.scores[mine], scores[theirs]))
        torch.testing.assert_close(
            ours.scores[mine][my_order], scores[theirs][their_order], rtol=0, atol=score_tolerance
        )
        torch.testing.assert_close(ours.boxes[mine][my_order], boxes[theirs][their_order], rtol=0, atol=box_tolerance)
