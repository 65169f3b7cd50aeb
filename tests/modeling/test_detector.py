"""The whole detector on batches that are hard to train on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine.assembly.model import build_model
from engine.config import get_cfg
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import Detections, ImageBatch, Targets

SETTINGS = [
    *("MODEL.DEVICE", "cpu", "MODEL.RPN_ONLY", True, "MODEL.ATSS_ON", True, "MODEL.WEIGHT", ""),
    *("MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0),
    *("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32, "MODEL.RESNETS.NORM", "GN", "MODEL.RETINANET.USE_C5", False),
    *("MODEL.ATSS.NUM_CLASSES", 4, "MODEL.ATSS.NUM_CONVS", 1, "DATALOADER.SIZE_DIVISIBILITY", 32),
]

TWO_STAGE = [
    *("MODEL.RPN_ONLY", False, "MODEL.ATSS_ON", False, "MODEL.BACKBONE.CONV_BODY", "R-18-FPN"),
    *("MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64), "MODEL.ROI_HEADS.USE_FPN", True),
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.25, 0.125), "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 4),
    *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPFeatureExtractor", "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor", "MODEL.ROI_HEADS.SCORE_THRESH", 0.0),
    *("MODEL.CLS_AGNOSTIC_BBOX_REG", True),
]


def _model(*changes: object) -> GeneralizedRCNN:
    torch.manual_seed(0)
    cfg = get_cfg()
    cfg.merge_from_list([*SETTINGS, *changes])
    return build_model(cfg)


def _targets(boxes: list[list[float]], crowd: bool = False) -> Targets:
    count = len(boxes)
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Targets(tensor, torch.zeros(count, dtype=torch.int64), torch.full((count,), crowd), 0, (64, 64))


@pytest.mark.parametrize(
    "changes", [(), ("MODEL.ATSS.REGRESSION_TYPE", "POINT"), ("MODEL.ATSS.USE_DCN_IN_TOWER", True)]
)
@pytest.mark.parametrize("positive_type", ["ATSS", "SSC", "IoU", "TOPK"])
@pytest.mark.parametrize(
    "targets",
    [
        [_targets([]), _targets([])],
        [_targets([[5, 5, 40, 40]], crowd=True), _targets([])],
        [_targets([[5, 5, 40, 40]]), _targets([])],
        [_targets([[7, 7, 7.5, 60]]), _targets([[0, 0, 64, 64]] * 3)],  # thinner than a pixel; three times the same
    ],
    ids=["no boxes", "only a crowd", "one image with a box", "degenerate"],
)
def test_losses_are_finite_and_reach_every_parameter(
    targets: list[Targets], positive_type: str, changes: tuple[object, ...]
) -> None:
    """A parameter without a gradient would make distributed training wait for ever."""
    model = _model("MODEL.ATSS.POSITIVE_TYPE", positive_type, *changes).train()
    losses = model(ImageBatch.from_list([torch.randn(3, 64, 64)] * 2), targets)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    if not any((~target.ignore).any() for target in targets):
        assert losses["loss_reg"] == 0 and losses["loss_centerness"] == 0


@pytest.mark.parametrize("changes", [(), TWO_STAGE], ids=["ATSS", "Cascade"])
def test_thousands_of_boxes_in_one_image(changes: list[object]) -> None:
    corners = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0)) * 60
    targets = _targets(torch.cat([corners, corners + 4], dim=1).tolist())
    losses = _model(*changes).train()([torch.randn(3, 64, 64)], [targets])
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()


def test_a_list_of_images_is_batched() -> None:
    model = _model().eval()
    images = [torch.randn(3, 40, 64), torch.randn(3, 64, 33)]
    with torch.no_grad():
        found = model(images)
        same = model(ImageBatch.from_list(images, 32))
    assert [type(each) for each in found] == [Detections] * 2 and [each.size for each in found] == [(40, 64), (64, 33)]
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(found, same, strict=True))


def test_the_smallest_image() -> None:
    """One pixel, one image: the upper levels are a single cell."""
    model = _model().eval()
    with torch.no_grad():
        assert len(model([torch.randn(3, 1, 1)])[0].boxes) >= 0


@pytest.mark.parametrize("changes", [["MODEL.ATSS.INFERENCE_TH", 0.0], TWO_STAGE], ids=["ATSS", "Cascade"])
def test_threads_share_a_model(changes: list[object]) -> None:
    """Two threads with images of different sizes find what one thread finds: nothing is kept between the calls."""
    model = _model(*changes).eval()
    images = [torch.randn(3, 64 + 32 * (i % 3), 96, generator=torch.Generator().manual_seed(i)) for i in range(12)]

    def detect(image: torch.Tensor) -> Detections:
        with torch.no_grad():
            return model.detect([image])[0]

    alone = [detect(image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(detect, images * 3))
    for ours, expected in zip(together, alone * 3, strict=True):
        assert len(expected) and ours.size == expected.size
        assert torch.equal(ours.boxes, expected.boxes) and torch.equal(ours.scores, expected.scores)


def test_verbs_do_not_depend_on_the_mode() -> None:
    model = _model("MODEL.ATSS.INFERENCE_TH", 0.0)  # group norms: no layer asks for the mode
    images, targets = [torch.randn(3, 64, 64)], [_targets([[5, 5, 40, 40]])]
    with torch.no_grad():
        losses, found = model.train().losses(images, targets), model.detect(images)
        assert all(torch.equal(value, losses[name]) for name, value in model.eval().losses(images, targets).items())
        assert torch.equal(model(images)[0].boxes, found[0].boxes)
        assert [len(model.selection(each)) for each in model.candidates(images)] == [len(found[0])]
