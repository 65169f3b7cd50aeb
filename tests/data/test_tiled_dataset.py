"""A data set of tiles: its entries, their boxes, what is decoded."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from engine.data.dataset import CocoDataset, ConcatDataset
from engine.data.loader import TrainSamples
from engine.data.tiled_dataset import TiledDataset, untiled
from engine.data.tiles import Tiling
from engine.data.transforms import Transform
from engine.errors import InputError
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

IMAGES = [(7, 50, 100), (9, 20, 30), (8, 40, 40)]
ANNOTATIONS = [
    annotation(7, bbox=[2, 2, 6, 6]),  # tile 0
    annotation(7, bbox=[35, 3, 4, 4], category_id=7),  # tiles 0 and 1
    annotation(7, bbox=[38, 20, 10, 10]),  # a fifth in tiles 0 and 3, whole in 1 and 4
    annotation(7, bbox=[70, 5, 20, 10], iscrowd=1),
    annotation(8, bbox=[0, 0, 40, 40]),
]
TILING = Tiling(40, 10)


@pytest.fixture
def coco(write_coco: WriteCoco) -> CocoDataset:
    return open_coco(write_coco(IMAGES, ANNOTATIONS))


def test_entries(coco: CocoDataset) -> None:
    tiles = TiledDataset(coco, TILING)
    assert (len(tiles), tiles.name, tiles.class_names) == (8, "toy", ["scratch", "hole"])
    assert tiles.image_ids == ["7#0", "7#1", "7#2", "7#3", "7#4", "7#5", "9#0", "8#0"]
    assert [tiles.image_path(index) for index in (0, 6)] == [coco.image_path(0), coco.image_path(1)]
    assert tiles.measured_sizes().tolist() == [[40, 40]] * 8
    assert tiles.image_of.tolist() == [0] * 6 + [1, 2]
    assert [tiles.locate(index) for index in (0, 5, 6, 7)] == [(0, 0), (0, 5), (1, 0), (2, 0)]
    assert untiled(tiles) is coco and untiled(coco) is coco


def test_whole_pictures(coco: CocoDataset) -> None:
    tiles = TiledDataset(coco, Tiling(40, 10, keep_full=True))
    assert tiles.image_ids == [*(f"7#{k}" for k in range(6)), "7#full", "9#0", "8#0"]
    assert tiles.sizes[5:8].tolist() == [[40, 40], [50, 100], [40, 40]]
    image, targets = tiles.read(6)
    assert image.shape == (50, 100, 3) and targets.original_size == (50, 100)
    # The reach is 10 - 2 * 0.4 = 9.2 pixels: only the third box counts, beside the crowd.
    assert targets.ignore.tolist() == [True, True, False, True] and tiles.num_boxes(6) == 1


def test_targets_of_tiles(coco: CocoDataset) -> None:
    tiles = TiledDataset(coco, TILING)
    whole, _ = coco.read(0)
    image, targets = tiles.read(0)
    assert (image == whole[:40, :40]).all()
    assert targets.boxes.tolist() == [[2, 2, 8, 8], [35, 3, 39, 7], [38, 20, 40, 30]]
    assert targets.labels.tolist() == [0, 1, 0] and targets.ignore.tolist() == [False, False, True]
    assert (targets.image_id, targets.size, targets.original_size) == ("7#0", (40, 40), (40, 40))
    image, targets = tiles.read(4)
    assert (image == whole[10:, 30:70]).all()
    assert targets.boxes.tolist() == [[8, 10, 18, 20]]
    assert tiles.read(2)[1].ignore.tolist() == [True]  # the crowd
    assert len(tiles.read(6)[1]) == 0


def test_counts_agree_with_what_is_read(coco: CocoDataset) -> None:
    for tiling in (TILING, Tiling(40, 10, keep_full=True), Tiling(40, 10, min_visibility=0.1), Tiling(60, 0)):
        tiles = TiledDataset(coco, tiling)
        for index in range(len(tiles)):
            _, targets = tiles.read(index)
            assert tiles.num_boxes(index) == int((~targets.ignore).sum())
            assert tiles.labels(index).tolist() == targets.labels[~targets.ignore].tolist()


def test_empty_tiles_are_left_out(coco: CocoDataset) -> None:
    tiles = TiledDataset(coco, TILING, filter_empty=True)
    assert tiles.image_ids == ["7#0", "7#1", "7#4", "8#0"]
    assert tiles.image_of.tolist() == [0, 0, 0, 2] and len(tiles.sizes) == 4
    assert [tiles.num_boxes(index) for index in range(4)] == [2, 2, 1, 1]
    assert tiles.read(2)[1].image_id == "7#4"
    assert "have no box to train on, which are left out; an epoch is 4" in tiles.plan().line()


def test_of_several_data_sets(write_coco: WriteCoco) -> None:
    parts = [open_coco(write_coco(IMAGES, ANNOTATIONS, name=name)) for name in ("a", "b")]
    tiles = TiledDataset(ConcatDataset(parts), TILING)
    tiles.value_range = (1.0, 9.0)
    assert len(tiles) == 16 and parts[1].value_range == (1.0, 9.0) == tiles.value_range
    assert tiles.num_boxes(8) == 2 and len(tiles.read(8)[1]) == 3 and tiles.labels(8).tolist() == [0, 1]


def test_plan(coco: CocoDataset) -> None:
    plan = TiledDataset(coco, TILING).plan()
    assert plan.line() == ("3 images become 8 tiles (1 to 6 per image); 4 (50%) have no box to train on; an epoch is 8")
    assert plan.fault() is None
    plan = TiledDataset(coco, Tiling(40, 10, keep_full=True)).plan()
    assert "become 8 tiles and 1 whole pictures (1 to 7 per image)" in plan.line()


def test_boxes_that_no_tile_shows(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco([(1, 40, 200)], [annotation(bbox=[5, 5, 190, 20]), annotation(bbox=[5, 5, 9, 9])]))
    fault = TiledDataset(dataset, TILING).plan().fault()
    assert fault.startswith("1 of 2 boxes (sides up to 190 pixels) are in no tile with enough of their area")
    assert TiledDataset(dataset, Tiling(40, 10, keep_full=True)).plan().fault() is None


# ---------------------------------------------------------------- decoding


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    from engine.data import dataset

    names, read = [], dataset.read_image
    monkeypatch.setattr(
        dataset, "read_image", lambda path, *rest: (names.append(Path(path).name), read(path, *rest))[1]
    )
    return names


def test_an_image_is_decoded_once_for_its_tiles(coco: CocoDataset, decoded: list[str]) -> None:
    tiles = TiledDataset(coco, TILING)
    first = [tiles.read(index)[0] for index in range(8)]
    for image in first:
        image[:] = 0  # what becomes of a tile is its own affair
    assert all(tiles.read(index)[0].any() for index in range(8))
    assert decoded == ["0.png", "1.png", "2.png"]
    assert len(pickle.dumps(tiles)) < len(pickle.dumps(tiles._opened))
    assert (pickle.loads(pickle.dumps(tiles)).read(3)[0] == tiles.read(3)[0]).all()


def test_what_is_kept_has_a_limit(coco: CocoDataset, decoded: list[str]) -> None:
    assert TiledDataset(coco, TILING).neighbours() is None
    tiles = TiledDataset(coco, TILING, kept_bytes=3 * (50 * 100 + 20 * 30))
    assert tiles.neighbours().at_once == 1 and tiles.neighbours().image_of.tolist() == tiles.image_of.tolist()
    for index in (0, 6, 1, 7, 6, 2):  # the third image leaves no room for both
        tiles.read(index)
    assert decoded == ["0.png", "1.png", "2.png", "1.png", "0.png"]


def test_the_whole_picture_is_given_away(coco: CocoDataset, decoded: list[str]) -> None:
    tiles = TiledDataset(coco, Tiling(40, 10, keep_full=True))
    image, _ = tiles.read(6)
    image[:] = 0
    assert tiles.read(0)[0].any() and decoded == ["0.png", "0.png"]


def test_another_size_than_stated(write_coco: WriteCoco) -> None:
    """Beyond the number of headers that are read, the stated sizes decide about the entries."""
    dataset = open_coco(write_coco([(1, 50, 100)], [annotation(bbox=[5, 5, 9, 9])]))
    for stated in ([40, 40], [500, 100]):
        tiles = TiledDataset(dataset, TILING, sizes=np.array([stated], np.int32))
        ids = [tiles.read(index)[1].image_id for index in range(len(tiles))]
        assert ids == tiles.image_ids
        assert tiles.read(0)[1].boxes.tolist() == [[5, 5, 14, 14]]
        assert all(tiles.read(index)[0].shape == (40, 40, 3) for index in range(len(tiles)))


def test_an_unreadable_image_is_said_once_and_replaced(coco: CocoDataset, decoded: list[str]) -> None:
    coco.image_path(0).write_bytes(b"no image")
    tiles = TiledDataset(coco, TILING)
    with pytest.raises(InputError, match="0.png: .*image id 7"):
        tiles.read(2)
    sample = TrainSamples(tiles, Transform([]), seed=0)[(0, 0)]
    assert sample.targets.image_id == "9#0" and len(sample.skipped) == 1
    assert decoded == ["0.png", "1.png"]


def test_files_without_a_size(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco(IMAGES, ANNOTATIONS, with_sizes=False))
    dataset.image_path(0).unlink()
    tiles = TiledDataset(dataset, TILING)
    assert tiles.image_ids == ["7#0", "9#0", "8#0"] and tiles.sizes.tolist() == [[0, 0], [40, 40], [40, 40]]
    assert tiles.num_boxes(0) == 0 and tiles.num_boxes(2) == 1
