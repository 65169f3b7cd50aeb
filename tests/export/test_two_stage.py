from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.data.transforms import Normalize
from engine.errors import InputError
from engine.export.graph import DetectionGraph
from engine.export.suppression import suppress
from engine.export.two_stage import Regions, roi_candidates, suppress_by_class
from engine.modeling.two_stage.roi_heads import StandardRoIHeads
from engine.modeling.two_stage.rpn import RPN
from tests.export.lively import lively_model
from tests.export.test_graph import noise, padded

NORMALIZE = Normalize((100.0, 110.0, 120.0), (1.0, 1.0, 1.0), True)


@pytest.mark.parametrize(
    "path, settings",
    [
        ("faster/faster_R_50_FPN_1x.yaml", {}),
        ("faster/faster_R_50_FPN_1x.yaml", {"MODEL.RPN.POST_NMS_TOP_N_TEST": "7", "MODEL.RPN.MIN_SIZE": "20"}),
        ("faster/faster_R_50_FPN_1x.yaml", {"MODEL.RPN.PRE_NMS_TOP_N_TEST": "0", "MODEL.RPN.NMS_THRESH": "0.0"}),
        ("cascade/cascade_R_50_FPN_1x.yaml", {"MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN": "logits"}),
        ("cascade/cascade_dcn_R_50_FPN_1x.yaml", {"MODEL.PIXEL_CONVENTION": "inclusive"}),
    ],
)
def test_graph_finds_what_the_model_finds(path: str, settings: dict[str, str]) -> None:
    model = lively_model(path, **settings)
    graph, images = DetectionGraph(model, NORMALIZE), noise((96, 128), (128, 70))
    with torch.no_grad():
        wanted = model.detect([NORMALIZE.pixels(image.permute(2, 0, 1)) for image in images])
        boxes, scores, labels, counts = graph(*padded(images))
    assert min(len(found) for found in wanted) > 20
    for i, found in enumerate(wanted):
        assert counts[i] == len(found)
        torch.testing.assert_close(boxes[i, : counts[i]], found.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(scores[i, : counts[i]], found.scores, atol=1e-5, rtol=0)
        assert torch.equal(labels[i, : counts[i]], found.labels)


def test_rows_that_fill_up_change_nothing() -> None:
    model = lively_model("cascade/cascade_R_50_FPN_1x.yaml")
    boxes = torch.tensor([[[4.0, 8, 60, 70], [30, 20, 90, 64], [0, 0, 0, 0]]])
    sizes = torch.tensor([[96, 128]])
    with torch.no_grad():
        features = model.backbone(70 * torch.randn(1, 3, 96, 128))
        padded = roi_candidates(model.roi_heads, features, Regions(boxes, torch.tensor([[True, True, False]])), sizes)
        plain = roi_candidates(model.roi_heads, features, Regions(boxes[:, :2], torch.tensor([[True, True]])), sizes)
    num = plain.scores.shape[1]
    torch.testing.assert_close(padded.boxes[:, :num], plain.boxes)
    torch.testing.assert_close(padded.scores[:, :num], plain.scores)
    assert (padded.scores[:, num:] == -1).all()


def test_classes_are_suppressed_as_if_in_one_call() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 30, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 20], dim=-1)
    scores = torch.rand(2, 30, generator=generator) - 0.2
    scores[scores < 0] = -1
    labels = torch.arange(3).repeat(2, 10)
    one_call = suppress(boxes, scores, labels, 3, 0.5)
    assert 0 < one_call.sum() < (scores > 0).sum()
    assert torch.equal(suppress_by_class(suppress)(boxes, scores, labels, 3, 0.5), one_call)


class OwnRPN(RPN):
    def propose(self, *args: object, **kwargs: object) -> list:
        return []


class OwnHeads(StandardRoIHeads):
    def candidates(self, *args: object, **kwargs: object) -> list:
        return []


@pytest.mark.parametrize(
    "part, kind, message",
    [
        ("rpn", OwnRPN, "the first stage OwnRPN cannot be exported, since it has a propose of its own; use RPN or"),
        ("roi_heads", OwnHeads, "the second stage OwnHeads cannot be exported, since it has a candidates of its own;"),
        ("roi_heads", nn.Identity, "a second stage of type Identity cannot be exported; use CascadeRoIHeads or Stan"),
    ],
)
def test_unknown_stages_are_refused(part: str, kind: type[nn.Module], message: str) -> None:
    model = lively_model("faster/faster_R_50_FPN_1x.yaml")
    if kind is nn.Identity:
        setattr(model, part, kind())
    else:
        getattr(model, part).__class__ = kind
    with pytest.raises(InputError) as error:
        DetectionGraph(model, NORMALIZE)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
