"""The exported network in torch: the same detections as the model it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from engine.assembly.detector import build_normalize
from engine.assembly.model import build_model
from engine.data.resizing import resized
from engine.data.transforms import Normalize
from engine.errors import InputError
from engine.export.candidates import Candidates
from engine.export.graph import DetectionGraph, Scaling, detections
from engine.export.suppression import NO_SCORE, suppress
from engine.modeling.selection import Selection
from engine.structures import Detections
from tests.configurations import FOLDER, narrow


def noise(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    """Images (H_i, W_i, 3) of random bytes."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]


def padded(images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs of the network: images in one tensor, with random bytes beyond them, and their sizes."""
    sizes = torch.tensor([image.shape[:2] for image in images])
    batch = noise(tuple(sizes.amax(0).tolist()))[0].repeat(len(images), 1, 1, 1)
    for slot, image in zip(batch, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    return batch, sizes


SMALL_BODY = {"MODEL.BACKBONE.CONV_BODY": "R-18-FPN-RETINANET"}
STAGES = {
    "atss": "atss/atss_R_50_FPN_1x.yaml",
    "retinanet": "retinanet/retinanet_R_50_FPN_1x.yaml",
    "fcos": "fcos/fcos_R_50_FPN_1x.yaml",
    "gfl": "gfl/gfl_R_50_FPN_1x.yaml",
    "vfnet": "vfnet/vfnet_R_50_FPN_1x.yaml",
    "tood": "tood/tood_R_50_FPN_1x.yaml",
    "dyhead": "dyhead/atss_dyhead_R_50_FPN_1x.yaml",
    "pafpn": "pafpn/atss_pafpn_R_50_FPN_1x.yaml",
}
"""A configuration of each kind of detector of one stage."""


def trained_like(path: str, changed: Mapping[str, str] = MappingProxyType({})) -> tuple[DetectionGraph, Normalize]:
    """The graph of a narrow model of 3 classes that finds many boxes, and how its images are normalised."""
    cfg = narrow(FOLDER / path, changed)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    logits = model.rpn.head.cls_logits
    torch.nn.init.normal_(logits.weight, std=0.3)
    torch.nn.init.constant_(logits.bias, -1.0)
    normalize = build_normalize(cfg)
    return DetectionGraph(model, normalize).eval(), normalize


def check_equal(graph: DetectionGraph, normalize: Normalize, images: list[torch.Tensor]) -> torch.Tensor:
    """The graph finds in `images` what its model finds, to the bit; returns the counts."""
    with torch.no_grad():
        expected = graph.model.detect([normalize.pixels(image.permute(2, 0, 1)) for image in images])
        boxes, scores, labels, counts = graph(*padded(images))
    assert counts.tolist() == [len(each) for each in expected]
    assert boxes.shape[1] == counts.max()
    for i, each in enumerate(expected):
        torch.testing.assert_close(boxes[i, : counts[i]], each.boxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(scores[i, : counts[i]], each.scores, rtol=0, atol=1e-6)
        assert torch.equal(labels[i, : counts[i]], each.labels)
    return counts


@pytest.mark.parametrize("name", STAGES)
def test_the_graph_finds_what_the_model_finds(name: str) -> None:
    graph, normalize = trained_like(STAGES[name], SMALL_BODY)
    assert check_equal(graph, normalize, noise((70, 90), (64, 33))).min() > 0


CHANGES = {
    "one class": {"MODEL.ATSS.NUM_CLASSES": "2"},
    "no limits": {"TEST.DETECTIONS_PER_IMG": "0"},
    "no suppression": {"MODEL.ATSS.NMS_TH": "0.0"},
    "score voting": {"TEST.SCORE_VOTING": "0.05"},
    "other pixels": {
        "INPUT.TO_BGR255": "False",
        "INPUT.PIXEL_MEAN": "[0.4, 0.5, 0.6]",
        "INPUT.PIXEL_STD": "[0.2, 0.3, 0.25]",
    },
    "grey": {"INPUT.CHANNELS": "1", "INPUT.PIXEL_MEAN": "[100.0]", "INPUT.PIXEL_STD": "[1.0]"},
    "no padding": {"DATALOADER.SIZE_DIVISIBILITY": "0"},
    "continuous": {"MODEL.PIXEL_CONVENTION": "continuous"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_settings_of_the_model_are_those_of_the_graph(change: str) -> None:
    graph, normalize = trained_like("bccd/atss_R_18_bccd.yaml", CHANGES[change])
    if change == "no limits":
        graph.model.rpn.selection = replace(graph.model.selection, pre_nms_top_n=0)
    images = [image[..., : len(normalize.mean)] for image in noise((70, 90), (64, 33), (5, 8))]
    assert check_equal(graph, normalize, images).max() > 0


def test_nothing_found() -> None:
    graph, normalize = trained_like("bccd/atss_R_18_bccd.yaml")
    torch.nn.init.constant_(graph.model.rpn.head.cls_logits.bias, -1e4)
    assert check_equal(graph, normalize, noise((40, 50), (50, 40))).tolist() == [0, 0]


def test_ties_with_the_last_detection_stay_and_the_first_of_equals_survives() -> None:
    """Four boxes of equal score: the second lies on the first; of the others, a limit of 2 keeps all."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])[None]
    scores, labels = torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([[1, 1, 1, 0]])
    selection = Selection(nms_thresh=0.6, max_detections=2)
    found = detections(Candidates(boxes, scores, labels), selection, suppress, 2)
    expected = selection(Detections(boxes[0], scores[0], labels[0], (60, 60)))
    assert found[3].tolist() == [3] == [len(expected)]
    assert found[0][0].tolist() == expected.boxes.tolist()


def test_rows_without_a_box_suppress_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 11]], [[0, 0, 10, 10], [0, 0, 10, 11]]])
    scores = torch.tensor([[NO_SCORE, 0.4], [0.9, 0.4]])
    labels = torch.zeros(2, 2, dtype=torch.int64)
    assert suppress(boxes, scores, labels, 1, 0.5).tolist() == [[False, True], [True, False]]


def test_a_camera_of_fixed_size_is_scaled_by_the_graph() -> None:
    graph, normalize = trained_like("bccd/atss_R_18_bccd.yaml")
    size, seen = (90, 120), (66, 88)
    camera = DetectionGraph(graph.model, normalize, Scaling(size, seen)).eval()
    image = noise(size)[0]
    planes = image.permute(2, 0, 1)
    scaled = camera.scaling.pixels(planes[None].float())[0]
    convention = graph.model.rpn.anchor_generator.convention
    with torch.no_grad():
        expected = graph.model.detect([normalize.pixels(scaled.to(torch.uint8))])[0].resize(size, convention)
        boxes, scores, labels, counts = camera(image[None], torch.tensor([size]))
    assert counts.tolist() == [len(expected)] and len(expected) > 10
    torch.testing.assert_close(boxes[0], expected.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores[0], expected.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "seen", "share"),
    [((90, 120), (66, 88), 0), ((40, 30), (80, 61), 0), ((97, 64), (97, 32), 0), ((900, 70), (60, 5), 1e-3)],
)
def test_the_graph_scales_as_images_are_scaled(size: tuple[int, int], seen: tuple[int, int], share: float) -> None:
    """Bytes have the same bits; where 8 lines and more become one, a rounded half may fall otherwise."""
    image = noise(size)[0]
    scaled = Scaling(size, seen).pixels(image.permute(2, 0, 1)[None].float())[0]
    difference = np.abs(scaled.permute(1, 2, 0).numpy() - resized(image.numpy(), seen))
    assert difference.max() <= 1 and (difference > 0).mean() <= share
    floats = Scaling(size, seen, is_rounded=False).pixels(image.permute(2, 0, 1)[None].float())[0]
    expected = resized(image.numpy().astype(np.float32), seen)
    np.testing.assert_allclose(floats.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-3)


def test_a_stage_of_the_users_own_is_refused_unless_it_is_a_dense_stage() -> None:
    graph, normalize = trained_like("bccd/atss_R_18_bccd.yaml")
    stage, model = graph.model.rpn, graph.model
    model.rpn = torch.nn.Identity()
    with pytest.raises(InputError, match="dense stage of type Identity"):
        DetectionGraph(model, normalize)
    stage.__class__ = type("Other", (type(stage),), {"candidates": lambda self, *args: []})
    model.rpn = stage
    with pytest.raises(InputError, match="candidates of its own"):
        DetectionGraph(model, normalize)
