"""From candidates to detections, with score voting or without it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.assembly.model import build_model
from engine.config import get_cfg, load_config
from engine.errors import InputError
from engine.inference.augment import AugmentedDetector, View
from engine.layers.score_voting import score_vote
from engine.layers.voting import nms
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.selection import Selection
from engine.structures import Detections

SMALL: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.CONV_BODY": "R-18-FPN-RETINANET",
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 32,
    "TEST.SCORE_VOTING": 0.025,
}


def words(**pairs: Any) -> list[Any]:
    return [word for pair in {**SMALL, **pairs}.items() for word in pair]


def overlapping() -> Detections:
    """Three boxes of class 0, the second of which the first suppresses, and a box of class 1 on the same place."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [1, 0, 11, 10]])
    return Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 0, 1]), (100, 100))


def test_suppressed_candidates_vote_and_scores_stay() -> None:
    candidates, plain, voting = overlapping(), Selection(), Selection(vote_sigma=0.025)
    expected, found = plain(candidates), voting(candidates)
    assert torch.equal(found.scores, expected.scores) and torch.equal(found.labels, expected.labels)
    assert torch.equal(found.boxes[1:], expected.boxes[1:])  # nothing of their classes overlaps them
    weight = 0.8 * torch.exp(torch.tensor(-((1 / 11) ** 2) / 0.025))
    torch.testing.assert_close(found.boxes[0], torch.tensor([0, 0, 10, (0.9 * 10 + weight * 11) / (0.9 + weight)]))
    assert torch.equal(candidates.boxes, overlapping().boxes)


def test_boxes_beyond_the_limit_still_vote() -> None:
    found = Selection(vote_sigma=0.025, max_detections=1)(overlapping())
    assert len(found) == 1 and found.boxes[0, 3] > 10


def test_no_candidates() -> None:
    assert len(Selection(vote_sigma=0.025)(overlapping()[:0])) == 0


@pytest.mark.parametrize("name", ["ATSS", "RETINANET", "FCOS", "GFL", "VFNET", "TOOD"])
def test_every_dense_stage_votes(name: str) -> None:
    pairs = {"MODEL.RPN_ONLY": True, "MODEL.DENSE.NAME": name}
    if name in ("ATSS", "RETINANET", "FCOS"):
        pairs |= {f"MODEL.{name}.NUM_CONVS": 1, f"MODEL.{name}.NUM_CLASSES": 3, f"MODEL.{name}.INFERENCE_TH": 0.0}
    else:
        pairs |= {"MODEL.DENSE.ARGS": {"num_convs": 1, "score_thresh": 0.0}, "MODEL.DENSE.NUM_CLASSES": 3}
    cfg = get_cfg()
    cfg.merge_from_list(words(**pairs))
    torch.manual_seed(0)
    model, image = build_model(cfg).eval(), torch.randn(3, 64, 96)
    with torch.no_grad():
        (candidates,), (found,) = model.candidates([image]), model([image])
    assert model.selection.vote_sigma == 0.025
    expected = plain_with_votes(candidates, model.selection)
    torch.testing.assert_close(found.boxes, expected)


def plain_with_votes(candidates: Detections, selection: Selection) -> Tensor:
    found = Selection(selection.score_thresh, 0, selection.nms_thresh, selection.max_detections)(candidates)
    kept = [
        int(
            ((candidates.boxes == box).all(1) & (candidates.scores == score) & (candidates.labels == label)).nonzero()[
                0
            ]
        )
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]
    return score_vote(candidates.boxes, candidates.scores, candidates.labels, torch.tensor(kept), 0.025)


@pytest.mark.parametrize("first", [{}, {"MODEL.DENSE.NAME": "ATSS", "MODEL.ATSS.NUM_CONVS": 0}])
def test_proposals_do_not_vote_but_the_second_stage_does(first: dict[str, Any]) -> None:
    cfg = load_config("configs/faster/faster_R_50_FPN_1x.yaml")
    cfg.defrost()
    strides = (8, 16, 32, 64, 128)
    scales = {"MODEL.ROI_BOX_HEAD.POOLER_SCALES": tuple(1 / stride for stride in strides[:4])}
    rpn = {"MODEL.RPN.ANCHOR_STRIDE": strides, **scales, "MODEL.WEIGHT": "", "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 32}
    cfg.merge_from_list(words(**rpn, **first))
    model = build_model(cfg)
    assert model.roi_heads.selection.vote_sigma == 0.025
    if first:
        assert model.rpn.selection.vote_sigma == model.rpn.train_selection.vote_sigma == 0


class TwoPasses(GeneralizedRCNN):
    """Finds `overlapping` in every image, a box further to the right in the mirrored one."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.Identity())
        self.rpn.selection = Selection(vote_sigma=0.025)

    def candidates(self, images: Sequence[Tensor]) -> list[Detections]:
        return [overlapping(), overlapping()[[0]]][: len(images)]


def test_each_pass_of_augmented_testing_votes_among_its_own_candidates() -> None:
    model, views = TwoPasses().eval(), [View(100, 100, mirrored=True)]
    detector = AugmentedDetector(model, views, lambda image: image.float(), partial(nms, iou_thresh=0.5))
    (found,) = detector.detect([torch.zeros(3, 100, 100, dtype=torch.uint8)])
    assert len(found) == 4
    straight = found.boxes[(found.boxes[:, 0] == 0) & (found.labels == 0)]
    assert torch.equal(straight, model.selection(overlapping()).boxes[:1])
    assert (found.boxes == torch.tensor([90.0, 0, 100, 10])).all(1).any()  # alone in its pass, so unchanged


def test_passes_that_are_merged_before_suppression_cannot_vote() -> None:
    yaml = "configs/atss/atss_R_50_FPN_1x.yaml"
    on = ["TEST.SCORE_VOTING", "0.025", "TEST.BBOX_AUG.ENABLED", "True"]
    with pytest.raises(InputError, match="write TEST.BBOX_AUG.VOTE: True or TEST.SCORE_VOTING: 0.0"):
        load_config(yaml, on)
    assert load_config(yaml, [*on, "TEST.BBOX_AUG.VOTE", "True"]).TEST.SCORE_VOTING == 0.025
