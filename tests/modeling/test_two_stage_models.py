"""Whole two-stage detectors from their configurations: every option trains and detects, whatever the images hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.assembly.model import build_model
from engine.config import load_config
from engine.modeling.dense.stage import DenseStage
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import ImageBatch, Targets
from tests.modeling.two_stage import CONFIGS, small_config

SIZE = (96, 128)
SMALL = {
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 100,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 50,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.ROI_HEADS.SCORE_THRESH": 0.0,
    "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM": 32,
    "MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS": 2,
}
CASCADE, FASTER = "cascade/cascade_R_50_FPN_1x.yaml", "faster/faster_R_50_FPN_1x.yaml"
ATSS_STAGE = {
    "MODEL.ATSS_ON": True,
    "MODEL.BACKBONE.CONV_BODY": "R-18-FPN-RETINANET",
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": (0.125, 0.0625, 0.03125),
    "MODEL.ATSS.NUM_CONVS": 1,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cascade": (CASCADE, {}),
    "faster": (FASTER, {}),
    "detectron2's": (CASCADE, {"MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE": False, "MODEL.RPN.COUNT_SAMPLED": False}),
    "class-specific cascade": (CASCADE, {"MODEL.CLS_AGNOSTIC_BBOX_REG": False}),
    "ohem": (CASCADE, {"MODEL.ROI_HEADS.SAMPLER": "ohem", "MODEL.RPN.SAMPLER": "ohem"}),
    "balanced": (CASCADE, {"MODEL.ROI_HEADS.SAMPLER": "balanced", "MODEL.RPN.SAMPLER": "balanced"}),
    "focal, giou": (CASCADE, {"MODEL.ROI_BOX_HEAD.CLS_LOSS": "focal", "MODEL.ROI_BOX_HEAD.BBOX_LOSS": "giou"}),
    "l1": (FASTER, {"MODEL.RPN.BBOX_LOSS": "l1", "MODEL.ROI_BOX_HEAD.BBOX_LOSS": "l1"}),
    "4conv1fc": (
        FASTER,
        {
            "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPNXconv1fcFeatureExtractor",
            "MODEL.ROI_BOX_HEAD.USE_GN": True,
            "MODEL.FPN.USE_GN": True,
        },
    ),
    "inclusive pixels": (FASTER, {"MODEL.PIXEL_CONVENTION": "inclusive", "MODEL.ROI_BOX_HEAD.POOLER_ALIGNED": False}),
    "nine ratios": (CASCADE, {"MODEL.RPN.ASPECT_RATIOS": (0.02, 0.05, 0.1, 0.5, 1.0, 2.0, 10.0, 20.0, 50.0)}),
    "two sizes a level": (FASTER, {"MODEL.RPN.ANCHOR_SIZES": (32, 45, 64, 90, 128, 181, 256, 362, 512, 724)}),
    "atss proposes": (CASCADE, ATSS_STAGE),
}


def model_of(name: str) -> GeneralizedRCNN:
    config, settings = VARIANTS[name]
    cfg = small_config(config, 3, **{**SMALL, **settings})
    cfg.freeze()
    torch.manual_seed(0)
    return build_model(cfg)


def images() -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    return ImageBatch(torch.randn(2, 3, *SIZE, generator=generator), [SIZE, (80, 100)])


def targets(boxes: list, ignore: bool = False) -> list[Targets]:
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.full((len(table),), ignore)
    labels = torch.arange(len(table)) % 3
    return [Targets(table, labels, flags, i, size) for i, size in enumerate(images().sizes)]


@pytest.mark.parametrize("name", VARIANTS)
def test_trains_and_detects(name: str) -> None:
    model = model_of(name).train()
    for batch_targets in (
        targets([[10, 10, 50, 60], [5, 40, 80, 44], [60, 20, 90, 70]]),
        targets([]),
        targets([[0, 0, 100, 80]], ignore=True),
    ):
        model.zero_grad()
        losses = model(images(), batch_targets)
        total = sum(losses.values())
        assert torch.isfinite(total) and len(losses) >= 4
        total.backward()
        missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        found = model.eval()(images())
        candidates = model.candidates(images())
    for detections, given, size in zip(found, candidates, images().sizes, strict=True):
        assert detections.size == size and 0 < len(detections) <= len(given)
        assert (detections.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all() and (detections.boxes >= 0).all()
        assert (detections.labels < 3).all() and (detections.scores.diff() <= 0).all()


def test_atss_keeps_its_names_and_tells_objects_only() -> None:
    model = model_of("atss proposes")
    assert isinstance(model.rpn, DenseStage)
    state = model.state_dict()
    assert len(state["rpn.head.cls_logits.weight"]) == 1
    assert {name.split(".")[0] for name in state} == {"backbone", "rpn", "roi_heads"}
    losses = model.train()(images(), targets([[10, 10, 50, 60], [60, 20, 90, 70]]))
    assert {"loss_cls", "loss_reg", "loss_centerness", "loss_classifier_stage0"} <= losses.keys()


def test_proposals_carry_no_gradient_and_need_no_targets() -> None:
    for name in ("faster", "atss proposes"):
        model = model_of(name).train()
        predictions = model.rpn(model.backbone(images().tensor), images().padded_size)
        for for_losses in (True, False):
            proposals = model.rpn.propose(*predictions, images().sizes, for_losses)
            assert len(proposals) == 2
            assert not any(p.boxes.requires_grad or p.scores.requires_grad for p in proposals)


def test_the_same_seed_samples_alike_in_any_split_of_the_batch() -> None:
    model = model_of("cascade").eval()  # batch norms do not look at the batch
    given = targets([[10, 10, 50, 60], [5, 40, 80, 44], [60, 20, 90, 70]])
    with torch.no_grad():
        features = model.backbone(images().tensor)
    chosen = []
    for split in ([0, 1], [0], [1]):
        torch.manual_seed(5)
        heads = model.roi_heads
        boxes = [torch.rand(300, 4, generator=torch.Generator().manual_seed(i)) * 40 for i in split]
        boxes = [torch.cat([box[:, :2], box[:, :2] + box[:, 2:] + 1], dim=1) for box in boxes]
        regions = heads.sample(
            [feature[split] for feature in features], boxes, [given[i] for i in split], heads.box[0], heads.matcher
        )
        chosen.append(regions.boxes)
    assert torch.equal(chosen[0][0], chosen[1][0]) and torch.equal(chosen[0][1], chosen[2][0])


@pytest.mark.parametrize(
    "path", sorted((*CONFIGS.glob("cascade/c*.yaml"), *CONFIGS.glob("faster/f*.yaml"))), ids=lambda path: path.stem
)
def test_configurations_load(path: Path) -> None:
    cfg = load_config(path)
    assert not cfg.MODEL.RPN_ONLY and cfg.MODEL.WEIGHT
    assert any(cfg.MODEL.RESNETS.STAGE_WITH_DCN) == ("dcn" in path.stem)
    assert ("dcnv2" in path.stem) == cfg.MODEL.RESNETS.WITH_MODULATED_DCN
    assert (cfg.SOLVER.MAX_ITER == 150_000) == path.stem.endswith("20e")
    assert (cfg.MODEL.RESNETS.NUM_GROUPS == 64) == ("X_101" in path.stem)
    assert (cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads") == path.stem.startswith("cascade")
