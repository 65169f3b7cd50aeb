"""`TILING`: what it builds, and which block counts."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.assembly.data import build_test_loader, build_train_dataset, build_train_loader
from engine.assembly.detector import build_detector
from engine.assembly.doctor import summarize_train_data
from engine.assembly.model import build_model
from engine.assembly.testing import Validation
from engine.assembly.tiling import build_fill, build_tiling, is_tiled, tiling_conventions
from engine.assembly.weights import follow_conventions
from engine.checkpoint.weights import WeightFile
from engine.config import get_cfg
from engine.data.neighbours import Neighbours
from engine.data.tiled_dataset import TiledDataset
from engine.data.tiles import Tiling
from engine.data.transforms import Transform
from engine.errors import InputError
from engine.inference.loop import detect
from engine.inference.predictor import ImagePredictor
from engine.inference.tiled import TiledDetector
from tests.conftest import WriteCoco
from tests.data.conftest import annotation
from tests.modeling.two_stage import small_config

STORED = {
    "TILING.SIZE": 64,
    "TILING.OVERLAP": 16,
    "TILING.MIN_VISIBILITY": 0.5,
    "TILING.KEEP_FULL": True,
    "TILING.MERGE_TYPE": "soft-vote",
    "TILING.MERGE_BY": "iou",
    "TILING.MERGE_THRESH": 0.5,
}


def tiled(cfg: Any, **block: Any) -> Any:
    cfg.merge_from_list([word for name, value in block.items() for word in (f"TILING.{name}", value)])
    return cfg


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("size", "overlap", "line"),
    [
        (31, 0, "TILING.SIZE is 31; it must be 32 pixels or more, 0 or -1 for no tiles"),
        (64, 33, "TILING.OVERLAP is 33; it must be at most half of TILING.SIZE, 32"),
    ],
)
def test_blocks_that_are_refused(size: int, overlap: int, line: str) -> None:
    with pytest.raises(InputError, match=line):
        tiled(get_cfg(), SIZE=size, OVERLAP=overlap).freeze()


def test_the_block() -> None:
    assert not is_tiled(get_cfg()) and not is_tiled(tiled(get_cfg(), SIZE=-1))
    assert build_tiling(tiled(get_cfg(), SIZE=66)) == Tiling(66, 16, 0.5, False)
    assert build_tiling(tiled(get_cfg(), SIZE=66, OVERLAP=0, KEEP_FULL=True)) == Tiling(66, 0, 0.5, True)
    assert tiling_conventions(get_cfg()) == {}
    assert tiling_conventions(tiled(get_cfg(), SIZE=64, OVERLAP=16, KEEP_FULL=True, MERGE_TYPE="soft-vote")) == STORED


# ---------------------------------------------------------------- checkpoints


def weights(conventions: dict[str, Any]) -> WeightFile:
    return WeightFile({"w": torch.ones(1)}, None, None, "w.pth", "engine", conventions)


def test_a_configuration_without_the_block_follows_the_weights(said: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.freeze()
    follow_conventions(cfg, weights(STORED))
    assert tiling_conventions(cfg) == STORED
    assert "w.pth needs TILING.SIZE 64" in said.text


def test_a_declared_block_wins(said: pytest.LogCaptureFixture) -> None:
    cfg = tiled(get_cfg(), SIZE=128, KEEP_FULL=True)
    follow_conventions(cfg, weights(STORED))
    assert (cfg.TILING.SIZE, cfg.TILING.OVERLAP, cfg.TILING.MERGE_TYPE) == (128, -1, "nms")
    assert "w.pth was trained with TILING.SIZE 64" in said.text and "the declared TILING.SIZE 128" in said.text
    follow_conventions(cfg, weights({}))
    assert cfg.TILING.SIZE == 128


def test_tiles_can_be_turned_off() -> None:
    cfg = tiled(get_cfg(), SIZE=-1)
    follow_conventions(cfg, weights(STORED))
    assert not is_tiled(cfg)


def test_keys_set_alone_stay() -> None:
    cfg = tiled(get_cfg(), MERGE_BY="ios")
    follow_conventions(cfg, weights(STORED))
    assert tiling_conventions(cfg) == {**STORED, "TILING.MERGE_BY": "ios"}


def test_a_block_that_is_no_block() -> None:
    with pytest.raises(InputError, match="w.pth: its conventions cannot be followed: TILING.SIZE must be "):
        follow_conventions(get_cfg(), weights({**STORED, "TILING.SIZE": "large"}))


# ---------------------------------------------------------------- data

IMAGES = [(7, 50, 100), (9, 20, 30)]
ANNOTATIONS = [annotation(7, bbox=[2, 2, 6, 6]), annotation(7, bbox=[60, 20, 10, 10])]


@pytest.fixture
def tiled_cfg(toy_cfg: Any, write_coco: WriteCoco) -> Any:
    write_coco(IMAGES, ANNOTATIONS)
    toy_cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    toy_cfg.INPUT.MAX_SIZE_TRAIN = 40
    return tiled(toy_cfg, SIZE=40, OVERLAP=10)


def test_training_tiles(tiled_cfg: Any, said: pytest.LogCaptureFixture) -> None:
    dataset = build_train_dataset(tiled_cfg)
    assert isinstance(dataset, TiledDataset) and len(dataset) == 7
    (summary,) = summarize_train_data(tiled_cfg, dataset)
    assert summary.num_images == 2 and "3 to ignore" not in said.text
    assert "TILING: 40 x 40 pixels, 10 shared: 2 images become 7 tiles (1 to 6 per image)" in said.text
    assert "tiles are scaled" not in said.text
    batches = list(build_train_loader(tiled_cfg, dataset=dataset))
    assert len(batches) == 6 and all(batch.images.tensor.shape == (4, 3, 40, 40) for batch in batches)
    assert {target.image_id for batch in batches for target in batch.targets} == set(dataset.image_ids)
    resumed = list(build_train_loader(tiled_cfg, 4))
    assert all(torch.equal(a.images.tensor, b.images.tensor) for a, b in zip(batches[4:], resumed, strict=True))


def test_the_scale_is_that_of_tiles(tiled_cfg: Any, said: pytest.LogCaptureFixture) -> None:
    """A box of 6 pixels stays wider than one at a fifth of the size, not at a tenth."""
    for size, count in ((8, 0), (4, 2)):
        tiled_cfg.INPUT.MIN_SIZE_TRAIN = (size,)
        (summary,) = summarize_train_data(tiled_cfg, build_train_dataset(tiled_cfg))
        assert summary.oddities["under_a_pixel"] == (1 if count else 0)
    assert "tiles are scaled by 0.2" in said.text


def test_filled_up_with_the_mean(tiled_cfg: Any) -> None:
    for is_bgr255, mean in ((True, (10.0, 20.0, 30.0)), (False, (0.2, 0.4, 0.6))):
        tiled_cfg.INPUT.TO_BGR255, tiled_cfg.INPUT.PIXEL_MEAN = is_bgr255, mean
        samples = [batch.images.tensor for batch in build_train_loader(tiled_cfg)]
        small = [image for batch in samples for image in batch if (image[:, 21:] == image[:, 21:, :1]).all()]
        assert small and all(image[:, 21:].abs().max() < 0.003 for image in small)


@pytest.mark.parametrize(("is_bgr255", "fill"), [(True, (1.0, 2.0, 3.0, 4.0)), (False, (3.0, 2.0, 1.0, 4.0))])
def test_the_filling_is_the_mean_as_it_is_read(is_bgr255: bool, fill: tuple[float, ...]) -> None:
    cfg = get_cfg()
    cfg.INPUT.TO_BGR255, cfg.INPUT.PIXEL_MEAN = is_bgr255, tuple(k / (1 if is_bgr255 else 255) for k in range(1, 5))
    assert build_fill(cfg) == pytest.approx(fill)


def test_a_share_of_empty_tiles(tiled_cfg: Any) -> None:
    tiled_cfg.DATALOADER.EMPTY_SHARE = 0.25
    tiled_cfg.TILING.KEPT_MB = 0
    for batch in build_train_loader(tiled_cfg):
        assert sum(not len(target) for target in batch.targets) == 1


def test_large_sets_are_drawn_in_portions(tiled_cfg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TiledDataset, "neighbours", lambda self: Neighbours(self.image_of, 1))
    loader = build_train_loader(tiled_cfg)
    assert loader.batch_sampler.plan.neighbours.at_once == 1
    images = [index == 6 for batch in loader.batch_sampler for _, index in batch][:7]
    assert images.index(True) in (0, 6)  # the only tile of its image is at an end


def test_without_empty_tiles(tiled_cfg: Any) -> None:
    tiled_cfg.DATALOADER.FILTER_EMPTY = True
    assert build_train_dataset(tiled_cfg).image_ids == ["7#0", "7#1", "7#2", "7#4", "7#5"]
    assert len(build_test_loader(tiled_cfg, "toy").dataset) == 2


# ---------------------------------------------------------------- detectors

SIZES = {
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 64,
    "TILING.SIZE": 64,
    "TILING.OVERLAP": 16,
    "TEST.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 0,
    "MODEL.RETINANET.NUM_CLASSES": 0,
    "MODEL.FCOS.NUM_CLASSES": 0,
}
CONFIGS = [
    "atss/atss_R_50_FPN_1x.yaml",
    "retinanet/retinanet_R_50_FPN_1x.yaml",
    "fcos/fcos_R_50_FPN_1x.yaml",
    "faster/faster_R_50_FPN_1x.yaml",
    "cascade/cascade_R_50_FPN_1x.yaml",
]
RANDOM = np.random.default_rng(0).integers(0, 256, (150, 100, 3), np.uint8)


@pytest.mark.parametrize("path", CONFIGS)
@pytest.mark.parametrize("augment", [False, True])
def test_any_detector(path: str, augment: bool) -> None:
    keys = {"TEST.BBOX_AUG.ENABLED": augment, "TEST.BBOX_AUG.H_FLIP": True, "TEST.BBOX_AUG.VOTE": True}
    cfg = small_config(path, **SIZES, **keys, **{"TILING.KEEP_FULL": True, "TILING.MERGE_THRESH": 1.0})
    torch.manual_seed(0)
    model = build_model(cfg, ["a", "b", "c", "d", "e"]).eval()
    for part in (model.rpn, model.roi_heads):
        if part is not None:
            part.selection = type(model.selection)(score_thresh=0.0, pre_nms_top_n=20, max_detections=20)
    detector, transform = build_detector(cfg, model)
    assert isinstance(detector, TiledDetector) and not transform.steps
    with torch.inference_mode():
        (found,) = detector([torch.from_numpy(RANDOM).permute(2, 0, 1)])
    assert found.size == (150, 100) and len(found) > 0
    assert (found.boxes >= 0).all() and (found.boxes[:, 2] <= 100).all() and (found.boxes[:, 3] <= 150).all()
    assert (found.scores[:-1] >= found.scores[1:]).all()


def test_batches_and_threads_do_not_matter() -> None:
    cfg = small_config(CONFIGS[0], **SIZES)
    torch.manual_seed(0)
    model = build_model(cfg, ["a", "b", "c", "d", "e"]).eval()
    model.rpn.selection = type(model.selection)(score_thresh=0.0, pre_nms_top_n=20, max_detections=20)
    found = []
    for batch_size in (1, 4):
        cfg.TEST.IMS_PER_BATCH = batch_size
        predictor = ImagePredictor(*build_detector(cfg, model), torch.device("cpu"), ["a", "b", "c", "d", "e"])
        found += predictor([RANDOM, RANDOM])
    assert len(found[0]) > 10
    for other in found[1:]:
        torch.testing.assert_close(other.boxes, found[0].boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(other.scores, found[0].scores, rtol=0, atol=1e-5)


def test_validation(write_coco: WriteCoco, tmp_path: Any) -> None:
    """Detections of whole images, and losses of what the model sees."""
    write_coco([(1, 90, 130), (2, 64, 64)], [annotation(1, bbox=[10, 10, 20, 20]), annotation(2, bbox=[5, 5, 30, 9])])
    catalog = {"toy": {"img_dir": "toy/images", "ann_file": "toy/ann.json"}}
    keys = {"DATASETS.ROOT": str(tmp_path), "DATASETS.CATALOG": catalog, "DATASETS.VAL": ("toy",)}
    cfg = small_config(CONFIGS[0], num_classes=2, **SIZES, **keys)
    cfg.merge_from_list(["TEST.BBOX_AUG.ENABLED", True])
    torch.manual_seed(0)
    model = build_model(cfg, ["scratch", "hole"])
    outcome = Validation(cfg, ["scratch", "hole"])(model)["toy"]
    assert {"AP", "loss", "loss_cls"} <= outcome["figures"].keys()
    loader = build_test_loader(cfg, "toy", transform=Transform([]))
    detector, _ = build_detector(cfg, model, augment=False)
    found = detect(detector, loader, torch.device("cpu"))
    assert found.detections.keys() == {1, 2} and found.detections[1].size == (90, 130)
    cfg.SOLVER.VALIDATION.LOSS = False
    assert "loss" not in Validation(cfg, ["scratch", "hole"])(model)["toy"]["figures"]


def test_written_images_are_found_where_they_are(tmp_path: Any) -> None:
    """Paths and arrays are cut alike."""
    cfg = small_config(CONFIGS[0], **SIZES)
    model = build_model(cfg, ["a", "b", "c", "d", "e"]).eval()
    predictor = ImagePredictor(*build_detector(cfg, model), torch.device("cpu"), ["a", "b", "c", "d", "e"])
    cv2.imwrite(str(tmp_path / "a.png"), RANDOM)
    first, second = predictor([tmp_path / "a.png", RANDOM])
    assert torch.equal(first.boxes, second.boxes)
