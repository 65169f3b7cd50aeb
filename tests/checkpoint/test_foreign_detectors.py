"""Names of detectors of other projects: each name of a real model has its place in ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from engine.assembly.model import build_model
from engine.checkpoint.foreign import detectron2, torchvision_detection, translate
from engine.checkpoint.foreign.rename import regroup_anchors, with_frozen_norm_eps
from engine.config import load_config


def our_shapes(config: str, *opts: str) -> dict[str, list[int]]:
    model = build_model(load_config(config, ["MODEL.DEVICE", "cpu", *opts]))
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items() if "num_batches" not in name}


def conventions(module, tensors: dict[str, Tensor]) -> list[str]:
    return [str(item) for pair in module.conventions(tensors).items() for item in pair]


def test_detectron2_retinanet(golden_dir: Path) -> None:
    recorded = json.loads((golden_dir / "detectron2" / "keys.json").read_text())["retinanet_R_50_FPN"]
    tensors = {name: torch.zeros(shape) for name, shape in recorded}
    tensors["pixel_mean"] = tensors["anchor_generator.cell_anchors.0"] = torch.zeros(3)
    translated, name = translate(tensors)
    assert name == "detectron2"
    config = "configs/retinanet/retinanet_R_50_FPN_1x.yaml"
    assert shapes(translated) == our_shapes(config, *conventions(detectron2, translated))


@pytest.mark.parametrize(
    "build, config",
    [
        (detection.retinanet_resnet50_fpn, "retinanet/retinanet"),
        (detection.retinanet_resnet50_fpn_v2, "retinanet/retinanet"),
        (detection.fcos_resnet50_fpn, "fcos/fcos"),
    ],
)
def test_torchvision(build, config: str) -> None:
    """91 classes by category id become the 80 of COCO."""
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None, num_classes=91).state_dict()
    tensors = {name: torch.empty(tensor.shape) for name, tensor in theirs.items()}
    translated, name = translate(tensors)
    assert name == "torchvision_detection"
    opts = conventions(torchvision_detection, translated)
    assert shapes(translated) == our_shapes(f"configs/{config}_R_50_FPN_1x.yaml", *opts)


def test_torchvision_faster_names() -> None:
    with torch.device("meta"):
        theirs = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).state_dict()
    translated = torchvision_detection.translate({name: torch.zeros(t.shape) for name, t in theirs.items()})
    assert translated["roi_heads.box.predictor.cls_score.weight"].shape == (4, 1024)
    assert translated["roi_heads.box.predictor.bbox_pred.weight"].shape == (12, 1024)
    assert {"backbone.fpn.fpn_inner1.weight", "rpn.head.conv.weight"} <= set(translated)


def test_background_goes_first_to_last() -> None:
    names = {
        "backbone.fpn.inner_blocks.0.0.weight": torch.zeros(1),
        "roi_heads.box_predictor.cls_score.weight": torch.tensor([[0.0], [1.0], [2.0]]),
        "roi_heads.box_predictor.cls_score.bias": torch.tensor([0.0, 1.0, 2.0]),
        "roi_heads.box_predictor.bbox_pred.weight": torch.arange(12.0)[:, None],
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(12.0),
    }
    translated = torchvision_detection.translate(names)
    assert translated["roi_heads.box.predictor.cls_score.bias"].tolist() == [1, 2, 0]
    assert translated["roi_heads.box.predictor.bbox_pred.bias"].tolist() == list(range(4, 12))


def test_old_torchvision_names() -> None:
    """Before 2022 the names of pyramid and towers had one level less."""
    rules = [*torchvision_detection._fpn_rules(2), *torchvision_detection._dense_rules(["head.x.conv.2.weight"])]
    rename = torchvision_detection.rename
    assert rename("backbone.fpn.inner_blocks.0.weight", rules) == "backbone.fpn.fpn_inner2.weight"
    assert rename("backbone.fpn.layer_blocks.2.0.bias", rules) == "backbone.fpn.fpn_layer4.bias"
    assert rename("head.classification_head.conv.2.weight", rules) == "rpn.head.cls_tower.2.weight"


def test_anchors_are_regrouped() -> None:
    """Two sizes and three ratios: (s0 r0), (s0 r1), ... becomes (s0 r0), (s1 r0), ..."""
    rows = torch.arange(6.0).repeat_interleave(4)
    scores = torch.arange(6.0).repeat_interleave(2)
    tensors = {
        "rpn.head.bbox_pred.bias": rows,
        "rpn.head.bbox_pred.weight": rows[:, None, None, None],
        "rpn.head.cls_logits.bias": scores,
        "rpn.head.cls_logits.weight": scores[:, None, None, None],
    }
    found = regroup_anchors(tensors, num_ratios=3)
    assert found["rpn.head.bbox_pred.bias"].tolist()[::4] == [0, 3, 1, 4, 2, 5]
    assert found["rpn.head.cls_logits.bias"].tolist()[::2] == [0, 3, 1, 4, 2, 5]


def test_epsilon_of_frozen_norms_only() -> None:
    tensors = {
        "a.running_var": torch.ones(1),
        "b.running_var": torch.ones(1),
        "b.num_batches_tracked": torch.tensor(3),
        "a.weight": torch.ones(1),
    }
    found = with_frozen_norm_eps(tensors, 0.5)
    assert (found["a.running_var"], found["b.running_var"], found["a.weight"]) == (1.5, 1.0, 1.0)
