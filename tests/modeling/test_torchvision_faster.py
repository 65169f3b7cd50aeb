"""Faster R-CNN detects what the installed torchvision's does, with its (random) weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from engine.assembly.model import build_model
from engine.checkpoint import load_weights
from engine.checkpoint.foreign import torchvision_detection
from engine.checkpoint.weights import WeightFile
from engine.config import load_config
from engine.structures import ImageBatch
from tests.modeling.conftest import assert_same_detections

SIZES = [(160, 224), (150, 200)]
NUM_CLASSES = 5  # with the background

CONFIG = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  BACKBONE: {{CONV_BODY: R-18-FPN}}
  RESNETS: {{BACKBONE_OUT_CHANNELS: 32, NORM: BN}}
  RPN:
    PRE_NMS_TOP_N_TEST: 80
    POST_NMS_TOP_N_TEST: 60
    FPN_POST_NMS_TOP_N_TEST: 60
  ROI_HEADS: {{SCORE_THRESH: 0.05, NMS: 0.5, DETECTIONS_PER_IMG: 40}}
  ROI_BOX_HEAD: {{NUM_CLASSES: 5, MLP_HEAD_DIM: 64}}
DATALOADER: {{SIZE_DIVISIBILITY: 32}}
TEST: {{DETECTIONS_PER_IMG: 40}}
"""


def torchvision_model() -> FasterRCNN:
    torch.manual_seed(4)
    backbone = _resnet_fpn_extractor(resnet18(weights=None), 5)
    backbone.fpn = FeaturePyramidNetwork([64, 128, 256, 512], 32, LastLevelMaxPool())
    backbone.out_channels = 32
    model = FasterRCNN(
        backbone,
        box_head=TwoMLPHead(32 * 49, 64),
        box_predictor=FastRCNNPredictor(64, NUM_CLASSES),
        rpn_pre_nms_top_n_test=80,
        rpn_post_nms_top_n_test=60,
        box_detections_per_img=40,
    )
    model.transform.resize = lambda image, target: (image, target)  # the sizes are right
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.05)
    nn.init.normal_(model.rpn.head.bbox_pred.weight, std=0.02)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1)
    nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=0.1)
    return model.eval()


def test_detections(tmp_path: Path) -> None:
    theirs = torchvision_model()
    tensors = torchvision_detection.translate(theirs.state_dict())
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(base=Path("configs/faster/_base_faster_fpn_1x.yaml").resolve()))
    conventions = [str(x) for pair in torchvision_detection.conventions(tensors).items() for x in pair]
    model = build_model(load_config(config, conventions)).eval()
    report = load_weights(model, WeightFile(tensors, None, None, "test", "torchvision_detection"))
    assert report.ok
    generator = torch.Generator().manual_seed(5)
    images = [torch.rand(3, *size, generator=generator) for size in SIZES]
    batch = ImageBatch.from_list([theirs.transform.normalize(image) for image in images], 32)
    with torch.no_grad():
        found, expected = model(batch), theirs(images)
    assert min(len(detections) for detections in found) > 10
    for ours, answer in zip(found, expected, strict=True):
        assert_same_detections(ours, answer["boxes"], answer["scores"], answer["labels"] - 1, 1e-2, 1e-4)
