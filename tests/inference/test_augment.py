from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from engine.assembly.detector import build_augmented, build_detector, build_views
from engine.assembly.model import build_model
from engine.config import get_cfg, load_config
from engine.data.batch import Batch
from engine.data.transforms import Transform, resized_size
from engine.inference.augment import AugmentedDetector, View
from engine.inference.loop import detect
from engine.inference.predictor import ImagePredictor
from engine.layers.voting import nms, soft_vote, vote
from engine.modeling.selection import Selection
from engine.structures import INCLUSIVE, Detections, ImageBatch, Targets
from engine.structures import boxes as box_ops

LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])
"""Added to a box in the reference's inclusive pixels, it gives the box we store."""


class BrightDetector(nn.Module):
    """Finds the one bright rectangle of an image; what it was given is counted."""

    selection = Selection()

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, int]]] = []

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        self.batches.append([tuple(image.shape[-2:]) for image in images])
        return [self.find(image) for image in images]

    candidates = detect

    def find(self, image: Tensor) -> Detections:
        rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
        size = tuple(image.shape[-2:])
        if not len(rows):
            return Detections(image.new_zeros(0, 4), image.new_zeros(0), torch.zeros(0, dtype=torch.int64), size)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        scores = image.new_full((1,), 0.5 + size[0] / 1000)
        return Detections(torch.stack(box).float()[None], scores, scores.new_zeros(1).long(), size)


def picture(size: tuple[int, int], box: tuple[int, int, int, int]) -> Tensor:
    """Black uint8 image (3, H, W) with a white `box`."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, box[1] : box[3], box[0] : box[2]] = 255
    return image


def augmented(views: list[View], merge: Any = None, **options: Any) -> AugmentedDetector:
    merge = merge or partial(vote, iou_thresh=0.5)
    return AugmentedDetector(BrightDetector().eval(), views, lambda image: image.float() / 255, merge, **options)


# -- by hand --------------------------------------------------------------------------------------------------------


def test_every_copy_finds_the_same_box() -> None:
    image = picture((40, 60), (8, 12, 24, 36))
    detector = augmented([View(40, 100, mirrored=True), View(20, 100, mirrored=True), View(80, 200)])
    (found,) = detector([image])
    assert found.size == (40, 60)
    torch.testing.assert_close(found.boxes, torch.tensor([[8.0, 12.0, 24.0, 36.0]]), rtol=0, atol=0.51)
    assert found.scores.tolist() == pytest.approx([0.58])  # the largest: of the largest scale
    assert detector.model.batches == [[(40, 60)] * 2, [(20, 30)] * 2, [(80, 120)]]


def test_images_of_a_batch_go_together_and_keep_their_sizes() -> None:
    images = ImageBatch.from_list([picture((40, 60), (8, 12, 24, 36)), picture((50, 50), (10, 0, 50, 20))], 32)
    detector = augmented([View(40, 100, mirrored=True), View(80, 100)])
    found = detector(images)
    assert [f.size for f in found] == [(40, 60), (50, 50)]
    assert detector.model.batches == [[(40, 60), (40, 40)] * 2, [(67, 100), (80, 80)]]
    torch.testing.assert_close(found[1].boxes, torch.tensor([[10.0, 0.0, 50.0, 20.0]]), rtol=0, atol=1.0)


def test_equal_scales_share_a_pass_and_count_as_often_as_they_are_named() -> None:
    image = picture((40, 60), (8, 12, 24, 36))
    views = [View(40, 100), View(40, 100, mirrored=True), View(80, 60), View(20, 100)]
    detector = augmented(views, partial(nms, iou_thresh=1.0))
    (found,) = detector([image])
    assert detector.model.batches == [[(40, 60)] * 2, [(20, 30)]]  # the third cannot grow, so it is the plain one
    assert len(found) == 5


def test_size_ranges_are_strict_and_in_the_scaled_image() -> None:
    image = picture((40, 60), (8, 8, 24, 24))  # a side of 16, of 32 in the doubled image
    for size_range, count in [((31, 33), 2), ((32, 99), 1), ((0, 32), 1), ((15, 17), 1)]:
        detector = augmented([View(40, 99), View(80, 999, size_range=size_range)], partial(nms, iou_thresh=1.0))
        assert len(detector([image])[0]) == count


def test_nothing_found() -> None:
    (found,) = augmented([View(40, 100, mirrored=True), View(20, 100)])([torch.zeros(3, 40, 60, dtype=torch.uint8)])
    assert len(found) == 0 and found.size == (40, 60)


def test_the_best_are_kept_and_ties_stay() -> None:
    image = picture((40, 60), (8, 8, 24, 24))
    views = [View(40, 100, mirrored=True), View(20, 100)]
    for limit, count in [(1, 2), (2, 2), (3, 3), (0, 3)]:
        assert len(augmented(views, partial(nms, iou_thresh=1.0), max_detections=limit)([image])[0]) == count


def test_boxes_mapped_back_stay_in_the_image() -> None:
    """The reference does not clip them: in inclusive pixels an enlarged copy's last one lies beyond the image's."""
    image = picture((40, 60), (40, 20, 60, 40))
    detector = augmented([View(40, 100), View(80, 200)], partial(nms, iou_thresh=1.0), convention=INCLUSIVE)
    boxes = detector([image])[0].boxes
    assert (boxes[:, 2] <= 60).all() and (boxes[:, 3] <= 40).all()


@pytest.mark.parametrize("suppress_first", [True, False])
def test_one_pass_at_a_time_gives_the_same(suppress_first: bool) -> None:
    image = picture((44, 61), (8, 12, 24, 36))
    views = [View(40, 100, mirrored=True), View(20, 100), View(60, 100, mirrored=True, size_range=(0, 99))]
    merge = partial(soft_vote, iou_thresh=0.5, score_thresh=0.001)
    (together,) = augmented(views, merge, suppress_first=suppress_first)([image])
    parts = []
    for view in views:
        for mirrored in [False, True][: 1 + view.mirrored]:
            source = image.flip(-1) if mirrored else image
            (found,) = augmented([View(view.min_size, view.max_size)], partial(nms, iou_thresh=1.0))([source])
            boxes = box_ops.flip_horizontal(found.boxes, 61) if mirrored else found.boxes
            parts.append(Detections(boxes, found.scores, found.labels, (44, 61)))
    frame = resized_size((44, 61), 40, 100)
    joined = [torch.cat([getattr(p.resize(frame), name) for p in parts]) for name in ("boxes", "scores", "labels")]
    alone = Detections(*merge(*joined), frame).resize((44, 61))
    assert len(together) == len(alone) > 1
    torch.testing.assert_close(together.boxes, alone.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu() -> None:
    image = picture((44, 61), (8, 12, 24, 36))
    views = [View(40, 100, mirrored=True), View(60, 100, mirrored=True)]
    (on_gpu,), (on_cpu,) = augmented(views)([image.cuda()]), augmented(views)([image])
    assert on_gpu.boxes.is_cuda
    torch.testing.assert_close(on_gpu.boxes.cpu(), on_cpu.boxes, rtol=0, atol=1.0)


# -- in the place of a model ----------------------------------------------------------------------------------------


def test_over_a_data_set() -> None:
    image = picture((40, 60), (8, 12, 24, 36))
    none = torch.zeros(0, dtype=torch.int64)
    target = Targets(torch.zeros(0, 4), none, none.bool(), 7, (40, 60), (40, 60))
    detector = augmented([View(80, 200), View(40, 200)])
    detector.train()
    found = detect(detector, [Batch(ImageBatch.from_list([image]), [target])], torch.device("cpu"))
    torch.testing.assert_close(found.detections[7].boxes, torch.tensor([[8.0, 12, 24, 36]]), rtol=0, atol=0.51)
    assert detector.training


def test_in_a_predictor() -> None:
    image = picture((40, 60), (8, 12, 24, 36)).permute(1, 2, 0).numpy()
    predictor = ImagePredictor(augmented([View(80, 200)]), Transform([]), torch.device("cpu"), ["blob"])
    found = predictor(image)
    assert found.size == (40, 60)
    torch.testing.assert_close(found.boxes, torch.tensor([[8.0, 12, 24, 36]]), rtol=0, atol=0.51)


def configuration(**augmentation: Any) -> Any:
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 800, 1333
    for key, value in {"ENABLED": True, **augmentation}.items():
        cfg.TEST.BBOX_AUG[key] = value
    return cfg


def test_views_with_vote() -> None:
    cfg = configuration(VOTE=True, SCALES=(799, 800), SCALE_RANGES=((96, 10000), (0, 96)), H_FLIP=True, MAX_SIZE=3000)
    assert build_views(cfg) == [
        View(800, 1333, True),
        View(799, 1333, False, (96, 10000)),
        View(800, 3000, False, (0, 96)),
    ]


def test_views_without_vote() -> None:
    cfg = configuration(SCALES=(400, 1000), SCALE_RANGES=((0, 9), (0, 9)), SCALE_H_FLIP=True, MAX_SIZE=3000)
    assert build_views(cfg) == [View(800, 1333), View(400, 3000, True), View(1000, 3000, True)]


def test_ranges_may_be_left_out() -> None:
    assert build_views(configuration(VOTE=True, SCALES=(400,)))[1].size_range is None


def test_without_augmentation_the_model_is_called_itself() -> None:
    model = BrightDetector()
    detector, transform = build_detector(configuration(ENABLED=False), model)
    assert detector is model and len(transform.steps) == 2


def test_mode_follows_the_model() -> None:
    detector, transform = build_detector(configuration(), BrightDetector().eval())
    assert not detector.training and transform.steps == []


# -- golden ---------------------------------------------------------------------------------------------------------


class Recorded(nn.Module):
    """Answers with the passes that the reference recorded, one view after the other."""

    def __init__(self, passes: list[dict[str, Any]], selection: Selection) -> None:
        super().__init__()
        self.passes, self.selection = list(passes), selection

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        first = self.passes[0]
        answers = self._next()
        if len(images) == 2 * len(answers):
            assert self.passes[0]["hflip"] and self.passes[0]["min_size"] == first["min_size"]
            answers += self._next()
        assert [answer.size for answer in answers] == [tuple(image.shape[-2:]) for image in images]
        return answers

    candidates = detect

    def _next(self) -> list[Detections]:
        recorded = self.passes.pop(0)
        answers = [detections_of(entry) for entry in recorded["det"]]
        for answer in answers:
            if recorded["hflip"]:  # recorded after mirroring back
                answer.boxes = box_ops.flip_horizontal(answer.boxes, answer.size[1])
        return answers


def detections_of(entry: dict[str, Any]) -> Detections:
    width, height = entry["size_wh"]
    return Detections(entry["boxes"] + LAST_PIXEL, entry["scores"], entry["labels"] - 1, (height, width))


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "atss" / "tta.pth", weights_only=True)


def run_of(golden: dict[str, Any], name: str, folder: Path) -> tuple[dict[str, Any], Any, list[Tensor]]:
    """A run, its configuration, the images (3, H, W) BGR."""
    run = next(run for run in golden["runs"] if run["name"] == name)
    (folder / "run.yaml").write_text(run["config_yaml"])
    images = [image.permute(2, 0, 1).flip(0) for image in golden["images_uint8_rgb_hwc"]]
    return run, load_config(folder / "run.yaml"), images


def assert_equal_sets(ours: Detections, theirs: Detections, atol: float, strangers: int = 0) -> None:
    """The same boxes (to `atol` pixels), scores (to `atol` / 10) and labels in any order, but for `strangers`."""
    assert len(ours) == len(theirs)
    a, b = (
        torch.cat([d.boxes.double(), 10 * d.scores[:, None].double(), 1e6 * d.labels[:, None].double()], dim=1)
        for d in (ours, theirs)
    )
    distances = torch.cdist(a, b, p=float("inf"))
    assert max((distances.amin(0) > atol).sum(), (distances.amin(1) > atol).sum()) <= strangers


RUNS = ["soft-vote", "vote", "nms", "novote", "soft-vote-limit50", "soft-vote-noflip"]


@pytest.mark.parametrize("name", RUNS)
def test_golden_merging(golden: dict[str, Any], name: str, tmp_path: Path) -> None:
    """From the recorded passes: which are made, size ranges, mapping back, merging."""
    run, cfg, images = run_of(golden, name, tmp_path)
    selection = Selection(cfg.MODEL.ATSS.INFERENCE_TH, nms_thresh=cfg.MODEL.ATSS.NMS_TH)
    limited = build_augmented(cfg, Recorded(run["passes"], selection).eval())(images)
    detector = build_augmented(cfg, Recorded(run["passes"], selection).eval())
    if run["VOTE"]:
        detector.max_detections = 0  # the reference's defect: cut at PRE_NMS_TOP_N, not DETECTIONS_PER_IMG
    for i, (ours, theirs) in enumerate(zip(detector(images), run["result"], strict=True)):
        expected = detections_of(theirs).resize(ours.size, INCLUSIVE)
        if "vote" in run["MERGE_TYPE"] and run["VOTE"]:  # the reference's defect: it loses the only box of a class
            counts = (run["merge_input"][i]["labels"] - 1).bincount(minlength=10)
            ours = ours[counts[ours.labels] > 1]
        if name == "soft-vote-limit50":
            ours = ours[: cfg.MODEL.ATSS.PRE_NMS_TOP_N]
        assert_equal_sets(ours, expected, atol=1e-3)
    assert [len(found) for found in limited] == [cfg.TEST.DETECTIONS_PER_IMG] * 2
    assert not detector.model.passes


@pytest.mark.parametrize("name", ["soft-vote", "novote"])
def test_golden_from_pixels(
    golden: dict[str, Any], name: str, golden_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the image: each pass of the network, too.

    Scaled by Pillow as there, for ours differs by a level here and there, which moves scores across thresholds. One
    candidate in a thousand may be another: float32 decides between equals at the cut to PRE_NMS_TOP_N.
    """
    monkeypatch.setattr("engine.inference.augment.resize_pixels", resize_by_pillow)
    run, cfg, images = run_of(golden, name, tmp_path)
    weights = torch.load(golden_dir / "atss" / golden["state_dict_from"], weights_only=True)["state_dict"]
    model = build_model(cfg).eval()
    model.load_state_dict({key: value for key, value in weights.items() if "cell_anchors" not in key})
    detector = build_augmented(cfg, model)
    passes: list[list[Detections]] = []
    merge_pass = detector._detect
    monkeypatch.setattr(detector, "_detect", lambda *a, **k: passes.extend(merge_pass(*a, **k)) or passes[-2:])
    with torch.inference_mode():
        detector(images)
    assert len(passes) == len(run["passes"])
    for ours, theirs in zip(passes, run["passes"], strict=True):
        for detections, recorded in zip(ours, theirs["det"], strict=True):
            assert_equal_sets(detections, detections_of(recorded), atol=2e-3, strangers=len(detections) // 1000)


def resize_by_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize(size[::-1], Image.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
