"""Names of real two-stage models (and of mmdetection's ATSS): each has its place in ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.assembly.model import build_model
from engine.checkpoint.foreign import conventions, mmdetection, translate
from engine.checkpoint.weights import place_deformable
from engine.config import get_cfg

CASES = {
    ("mmdet", "atss"): "atss/atss_R_50_FPN_1x.yaml",
    ("mmdet", "cascade"): "cascade/cascade_R_50_FPN_1x.yaml",
    ("mmdet", "faster"): "faster/faster_R_50_FPN_1x.yaml",
    ("mmdet", "cascade_dcn"): "cascade/cascade_dcn_R_50_FPN_1x.yaml",
    ("mmdet", "cascade_dcnv2"): "cascade/cascade_dcnv2_R_50_FPN_1x.yaml",
    ("detectron2", "cascade_rcnn_R_50_FPN"): "cascade/cascade_R_50_FPN_1x.yaml",
    ("detectron2", "faster_rcnn_R_50_FPN"): "faster/faster_R_50_FPN_1x.yaml",
}


@pytest.mark.parametrize("case", CASES, ids="/".join)
def test_nothing_is_missing_and_nothing_left_over(golden_dir: Path, case: tuple[str, str]) -> None:
    project, name = case
    recorded = json.loads((golden_dir / project / "keys.json").read_text())[name]
    tensors, format_name = translate({key: torch.zeros(shape) for key, shape in recorded})
    assert format_name == {"mmdet": "mmdetection"}.get(project, project)
    cfg = get_cfg()
    cfg.merge_from_file(Path("configs") / CASES[case])
    cfg.merge_from_list([word for pair in conventions(tensors, format_name).items() for word in pair])
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN" if project == "mmdet" else "FrozenBN"])
    cfg.freeze()
    ours = build_model(cfg).state_dict()
    theirs = place_deformable(tensors, ours)
    assert {key: tuple(value.shape) for key, value in theirs.items()} == {
        key: tuple(value.shape) for key, value in ours.items()
    }


def test_layers_with_a_norm_between() -> None:
    """Four convolutions with group norm in the box head, norms in the pyramid, mmdetection 1's name of the offsets."""
    names = {
        "neck.lateral_convs.0.conv.weight": "backbone.fpn.fpn_inner1.0.weight",
        "neck.lateral_convs.0.gn.bias": "backbone.fpn.fpn_inner1.1.bias",
        "neck.fpn_convs.3.gn.weight": "backbone.fpn.fpn_layer4.1.weight",
        "roi_head.bbox_head.shared_convs.2.conv.weight": "roi_heads.box.feature_extractor.xconvs.6.weight",
        "roi_head.bbox_head.shared_convs.2.gn.weight": "roi_heads.box.feature_extractor.xconvs.7.weight",
        "roi_head.bbox_head.shared_fcs.0.bias": "roi_heads.box.feature_extractor.fc6.bias",
        "backbone.layer3.1.conv2_offset.weight": "backbone.body.layer3.1.conv2.offset.weight",
    }
    laterals = {f"neck.lateral_convs.{i}.conv.weight": torch.zeros(1) for i in range(4)}
    translated = mmdetection.translate({**laterals, **dict.fromkeys(names, torch.zeros(1))})
    assert set(names.values()) <= translated.keys()


def test_retinanet_without_norms() -> None:
    names = {
        "bbox_head.cls_convs.3.conv.bias": "rpn.head.cls_tower.6.bias",
        "bbox_head.retina_reg.weight": "rpn.head.bbox_pred.weight",
        "neck.fpn_convs.4.conv.weight": "backbone.fpn.top_blocks.p7.weight",
    }
    laterals = {f"neck.lateral_convs.{i}.conv.weight": torch.zeros(1) for i in range(3)}
    assert set(names.values()) <= mmdetection.translate({**laterals, **dict.fromkeys(names, torch.zeros(1))}).keys()


def test_group_norm_box_head_of_detectron2() -> None:
    tensors, _ = translate(
        {
            "backbone.bottom_up.stem.conv1.weight": torch.zeros(1),
            "roi_heads.box_head.1.conv4.weight": torch.zeros(1),
            "roi_heads.box_head.1.conv4.norm.bias": torch.zeros(1),
        }
    )
    start = "roi_heads.box.1.feature_extractor.xconvs"
    assert {f"{start}.9.weight", f"{start}.10.bias"} <= tensors.keys()


@pytest.mark.parametrize(
    "scores, boxes, ours_scores, ours_boxes",
    [
        ([9, 1, 2], [9] * 4 + [1] * 4 + [2] * 4, [1, 2, 9], [1] * 4 + [2] * 4),  # a box for each class
        ([9, 1, 2, 3], [9] * 4 + [7] * 4, [1, 2, 3, 9], [7] * 4),  # one for all
        ([1, 2, 9], [1] * 4 + [2] * 4, [1, 2, 9], [1] * 4 + [2] * 4),  # ours already
        ([1, 2, 9], [7] * 4, [1, 2, 9], [7] * 4),
    ],
)
def test_background_of_the_reference(scores: list, boxes: list, ours_scores: list, ours_boxes: list) -> None:
    start = "roi_heads.box.predictor"
    given = {f"module.{start}.cls_score.bias": scores, f"module.{start}.bbox_pred.bias": boxes}
    given |= {name.replace("bias", "weight"): [[row] for row in rows] for name, rows in given.items()}
    tensors, name = translate({key: torch.tensor(rows) for key, rows in given.items()})
    assert name == "atss"
    assert tensors[f"{start}.cls_score.bias"].tolist() == ours_scores
    assert tensors[f"{start}.bbox_pred.bias"].tolist() == ours_boxes
    assert tensors[f"{start}.bbox_pred.weight"].flatten().tolist() == ours_boxes
