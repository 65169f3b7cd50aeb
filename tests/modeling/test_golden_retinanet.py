"""Our RetinaNet computes what detectron2's does (see the README of the golden figures)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.assembly.model import build_model
from engine.checkpoint import load_weights
from engine.checkpoint.foreign import detectron2
from engine.checkpoint.weights import WeightFile
from engine.config import load_config
from engine.modeling.dense.towers import flatten
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import ImageBatch, PixelConvention, Targets
from engine.structures import boxes as box_ops
from tests.modeling.conftest import assert_same_detections

CONFIG = """
MODEL:
  DEVICE: cpu
  RPN_ONLY: True
  RETINANET_ON: True
  CHANNELS_LAST: False
  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET}
  RESNETS: {BACKBONE_OUT_CHANNELS: 64}
  RETINANET:
    NUM_CLASSES: 6
    NUM_CONVS: 2
    PRE_NMS_TOP_N: 70
    NMS_TH: 0.5
    BBOX_REG_BETA: 0.0
    LOSS_NORMALIZER: moving_average
DATALOADER: {SIZE_DIVISIBILITY: 32}
TEST: {DETECTIONS_PER_IMG: 50}
"""


class Golden:
    def __init__(self, folder: Path, config: Path) -> None:
        self.data = torch.load(folder / "golden_more.pt", weights_only=True)["retinanet"]
        cascade = torch.load(folder / "golden_cascade.pt", weights_only=True)
        body = {k: v for k, v in cascade["state_dict"].items() if k.startswith("backbone.bottom_up.")}
        weights = {k: v.float() for k, v in {**body, **self.data["state_dict"]}.items()}
        tensors = detectron2.translate(weights)
        config.write_text(CONFIG)
        conventions = [str(x) for pair in detectron2.conventions(tensors).items() for x in pair]
        self.cfg = load_config(config, conventions)
        self.model: GeneralizedRCNN = build_model(self.cfg)
        self.report = load_weights(self.model, WeightFile(tensors, None, None, "golden", "detectron2"))
        mean = torch.tensor(self.cfg.INPUT.PIXEL_MEAN)[:, None, None]
        self.batch = ImageBatch.from_list([image.float() - mean for image in cascade["images"]], 32)
        self.output_sizes: list[list[int]] = cascade["output_size_hw"]
        self.gt: list[dict[str, Any]] = cascade["gt"]

    def targets(self) -> list[Targets]:
        return [
            Targets(gt["boxes"], gt["classes"], torch.zeros(len(gt["classes"]), dtype=torch.bool), i, size)
            for i, (gt, size) in enumerate(zip(self.gt, self.batch.sizes, strict=True))
        ]


@pytest.fixture(scope="module")
def golden(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return Golden(golden_dir / "detectron2", tmp_path_factory.mktemp("golden") / "retinanet.yaml")


def in_our_order(channels: torch.Tensor, per_anchor: int) -> torch.Tensor:
    """(9 * per_anchor, H, W) of anchors size-major -> (HWA, per_anchor) of anchors ratio-major."""
    rows = flatten(channels[None], per_anchor)[0].unflatten(0, (-1, 3, 3))  # (HW, sizes, ratios, per_anchor)
    return rows.transpose(1, 2).flatten(0, 2)


def test_only_the_normalizer_is_new(golden: Golden) -> None:
    assert golden.report.missing == ["rpn.normalizer.average"]
    assert not golden.report.unexpected and not golden.report.reshaped


def test_pyramid_anchors_and_head(golden: Golden) -> None:
    model, data = golden.model.eval(), golden.data
    with torch.no_grad():
        features = model.backbone(golden.batch.tensor)
        outputs = model.rpn.head(features)
    torch.testing.assert_close(features[3][0], data["p6_image0"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(features[4][0], data["p7_image0"], rtol=1e-3, atol=1e-3)
    anchors = model.rpn.anchor_generator(features)
    assert anchors.num_per_level == data["num_anchors"]
    theirs = torch.stack(data["cell_anchors"]).unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(model.rpn.anchor_generator.cells, theirs)
    first = anchors.num_per_level[0]  # of P3 nothing is recorded
    for name, ours, per_anchor in (("cls_logits", outputs.logits, 5), ("deltas", outputs.codes, 4)):
        expected = torch.cat([in_our_order(level, per_anchor) for level in data[f"{name}_image0"]])
        torch.testing.assert_close(ours[0, first:], expected, rtol=1e-3, atol=1e-3)


class Unclipped(PixelConvention):
    """detectron2 suppresses boxes as they are, and clips them when they are resized to the image."""

    def clip(self, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return boxes


def test_detections(golden: Golden) -> None:
    model = golden.model.eval()
    model.rpn.anchor_generator.convention = Unclipped(extent=0.0, anchor_rule="exact")
    with torch.no_grad():
        found = model(golden.batch)
    for ours, size, theirs in zip(found, golden.output_sizes, golden.data["final"], strict=True):
        ours = ours.resize(tuple(size))
        ours = ours[box_ops.area(ours.boxes) > 0]  # detectron2 drops boxes outside the image
        assert_same_detections(ours, theirs["boxes"], theirs["scores"], theirs["classes"], 0.05, 1e-3)


def test_losses_normalizer_and_gradients(golden: Golden) -> None:
    model = golden.model.train()
    model.zero_grad()
    model.rpn.normalizer.average.fill_(100.0)
    losses = model(golden.batch, golden.targets())
    expected = golden.data["train_losses"]
    torch.testing.assert_close(losses["loss_cls"], expected["loss_cls"], rtol=1e-4, atol=0)
    torch.testing.assert_close(losses["loss_reg"], expected["loss_box_reg"], rtol=1e-4, atol=0)
    assert float(model.rpn.normalizer.average) == pytest.approx(golden.data["loss_normalizer_after"])
    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    norms = golden.data["train_grad_norms"]
    named = {detectron2.our_name(name): norm for name, norm in norms.items()}
    assert {name for name, p in parameters.items() if p.grad is not None} == set(named)
    for name, norm in named.items():
        torch.testing.assert_close(parameters[name].grad.norm(), norm, rtol=1e-3, atol=1e-6, msg=name)
