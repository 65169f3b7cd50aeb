"""RetinaNet and FCOS compute what the installed torchvision's do, with its (random) weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS as TorchvisionFCOS
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from engine.assembly.model import build_model
from engine.checkpoint import load_weights
from engine.checkpoint.foreign import torchvision_detection
from engine.checkpoint.weights import WeightFile
from engine.config import load_config
from engine.layers.iou_losses import giou
from engine.modeling.dense.centerness import loss_of_codes
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import ImageBatch, Targets
from tests.modeling.conftest import assert_same_detections

NUM_CLASSES = 5  # torchvision counts the background
SIZES = [(160, 224), (150, 200)]  # padded to 160 x 224: P6 has 3 x 4 cells, which lie 53 and 56 pixels apart

CONFIG = """
MODEL:
  DEVICE: cpu
  RPN_ONLY: True
  {group}_ON: True
  BACKBONE: {{CONV_BODY: R-18-FPN-RETINANET}}
  RESNETS: {{BACKBONE_OUT_CHANNELS: 32, NORM: BN}}
  {group}: {{NUM_CLASSES: 5, INFERENCE_TH: 0.05, NMS_TH: 0.5, PRE_NMS_TOP_N: 60 {more}}}
DATALOADER: {{SIZE_DIVISIBILITY: 32}}
TEST: {{DETECTIONS_PER_IMG: 40}}
"""
RETINANET = ", LOSS_NORMALIZER: per_image, BBOX_REG_BETA: 0.0"
FCOS = ", CENTER_SAMPLING_RADIUS: 1.5, IOU_LOSS_TYPE: giou"
ARGUMENTS = {
    "min_size": 160,
    "max_size": 224,
    "score_thresh": 0.05,
    "nms_thresh": 0.5,
    "topk_candidates": 60,
    "detections_per_img": 40,
}


def torchvision_model(kind: str) -> nn.Module:
    torch.manual_seed(3)
    c5 = 512 if kind == "retinanet_v2" else 32
    body = resnet18(weights=None)
    backbone = _resnet_fpn_extractor(body, 5, [2, 3, 4], LastLevelP6P7(c5, 32))
    backbone.fpn = type(backbone.fpn)([128, 256, 512], 32, LastLevelP6P7(c5, 32))
    backbone.out_channels = 32
    if kind == "fcos":
        model = TorchvisionFCOS(backbone, NUM_CLASSES, head=FCOSHead(32, 1, NUM_CLASSES, 4), **ARGUMENTS)
    else:
        norm = partial(nn.GroupNorm, 32) if kind == "retinanet_v2" else None
        anchors = _default_anchorgen()
        model = TorchvisionRetinaNet(
            backbone,
            NUM_CLASSES,
            anchor_generator=anchors,
            head=RetinaNetHead(32, 9, NUM_CLASSES, norm_layer=norm),
            **ARGUMENTS,
        )
    for module in model.modules():  # scores that spread, statistics that matter
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    for name, parameter in model.head.named_parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.08 if "conv." in name else 0.02)
    logits = model.head.classification_head.cls_logits
    with torch.no_grad():
        logits.bias.fill_(-1.0)
        logits.bias.view(-1, NUM_CLASSES)[:, 0] = -50.0  # the background: no training ever raises it
        logits.weight.view(-1, NUM_CLASSES, 32, 3, 3)[:, 0] = 0.0
    return model


def our_model(kind: str, theirs: nn.Module, config) -> GeneralizedRCNN:
    tensors = torchvision_detection.translate(theirs.state_dict())
    group, more = ("FCOS", FCOS) if kind == "fcos" else ("RETINANET", RETINANET)
    config.write_text(CONFIG.format(group=group, more=more))
    conventions = [str(x) for pair in torchvision_detection.conventions(tensors).items() for x in pair]
    model = build_model(load_config(config, conventions))
    report = load_weights(model, WeightFile(tensors, None, None, "test", "torchvision_detection"))
    assert report.ok and not report.ignored or not report.missing + report.unexpected + report.reshaped
    return model


def images_and_targets() -> tuple[list[torch.Tensor], list[Targets]]:
    generator = torch.Generator().manual_seed(5)
    images = [torch.rand(3, *size, generator=generator) for size in SIZES]
    boxes = [torch.tensor([[10.0, 12, 70, 60], [60, 20, 210, 150], [100, 90, 130, 118]]), torch.zeros(0, 4)]
    labels = [torch.tensor([0, 3, 1]), torch.zeros(0, dtype=torch.int64)]
    targets = [
        Targets(b, k, torch.zeros(len(k), dtype=torch.bool), i, size)
        for i, (b, k, size) in enumerate(zip(boxes, labels, SIZES, strict=True))
    ]
    return images, targets


@pytest.mark.parametrize("kind", ["retinanet", "retinanet_v2", "fcos"])
def test_detections_and_losses(kind: str, tmp_path) -> None:
    theirs = torchvision_model(kind).eval()
    ours = our_model(kind, theirs, tmp_path / "c.yaml").eval()
    images, targets = images_and_targets()
    theirs.transform.resize = lambda image, target: (image, target)  # the sizes are right
    batch = ImageBatch.from_list([theirs.transform.normalize(image) for image in images], 32)
    with torch.no_grad():
        found, expected = ours(batch), theirs(images)
    assert min(len(detections) for detections in found) > 10
    for mine, yours in zip(found, expected, strict=True):
        assert_same_detections(mine, yours["boxes"], yours["scores"], yours["labels"] - 1, 1e-2, 1e-4)

    if kind == "fcos":  # what torchvision's losses have that no key says
        coder = ours.rpn.coder
        ours.rpn.box_loss = partial(loss_of_codes, coder=coder, loss=partial(giou, smoothing=0.0))
        ours.rpn.weight_by_centerness = False
    theirs.training = True  # but not the batch norms below it
    with torch.no_grad():
        losses = ours.losses(batch, targets)
        their_losses = theirs(images, [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets])
    names = {"loss_cls": "classification", "loss_reg": "bbox_regression", "loss_centerness": "bbox_ctrness"}
    if kind == "retinanet_v2":
        del names["loss_reg"]  # with deltas here, GIoU there
        losses.pop("loss_reg")
    for name, loss in losses.items():
        torch.testing.assert_close(loss, their_losses[names[name]], rtol=1e-4, atol=1e-6, msg=name)
