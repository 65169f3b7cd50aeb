from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.data.dataset import CocoDataset, ConcatDataset
from engine.errors import InputError
from tests.data.conftest import annotation, open_coco

WriteCoco = Callable[..., Path]


def test_labels_follow_sorted_category_ids(write_coco: WriteCoco) -> None:
    folder = write_coco(
        [(10, 20, 30), (4, 30, 20)],
        [
            annotation(4, 7, [1, 2, 3, 4]),
            annotation(10, 3, [0, 0, 5, 5]),
            annotation(4, 3, [2, 2, 1.5, 2.5]),
        ],
    )
    dataset = open_coco(folder)
    assert (dataset.class_names, dataset.category_ids) == (["scratch", "hole"], [3, 7])
    assert dataset.image_ids == [10, 4]  # the file's order
    assert dataset.sizes.tolist() == [[20, 30], [30, 20]]
    image, targets = dataset.read(1)
    assert image.shape == (30, 20, 3)
    assert targets.boxes.tolist() == [[1, 2, 4, 6], [2, 2, 3.5, 4.5]]
    assert targets.labels.tolist() == [1, 0]
    assert not targets.ignore.any()
    assert (targets.image_id, targets.size, targets.original_size) == (4, (30, 20), (30, 20))


def test_given_class_names_decide_the_order(write_coco: WriteCoco) -> None:
    folder = write_coco([(1, 20, 20)], [annotation(1, 3), annotation(1, 7)])
    dataset = open_coco(folder, class_names=["hole", "stain", "scratch"])
    assert dataset.category_ids == [7, 8, 3]  # 8: not used in the file
    assert dataset.read(0)[1].labels.tolist() == [2, 0]
    annotations = dataset.annotations  # ids in results have a meaning, also that of the class that the file lacks
    assert dict(zip(annotations.category_ids, annotations.category_names, strict=True)) == {
        7: "hole",
        3: "scratch",
        8: "stain",
    }
    assert [annotations.category_names[row] for row in annotations.category_rows] == ["scratch", "hole"]
    with pytest.raises(InputError, match="not trained: 'scratch'"):
        open_coco(folder, class_names=["hole", "stain"])


def test_boxes_are_clipped_and_empty_ones_dropped(write_coco: WriteCoco) -> None:
    boxes = [[-5, -5, 10, 10], [15, 15, 50, 50], [3, 3, 0, 5], [3, 3, 5, -1], [20, 0, 5, 5]]
    dataset = open_coco(write_coco([(1, 20, 20)], [annotation(bbox=box) for box in boxes]))
    assert dataset.read(0)[1].boxes.tolist() == [[0, 0, 5, 5], [15, 15, 20, 20]]
    assert dataset.annotations.boxes_xywh.tolist() == boxes


@pytest.mark.parametrize("stated", [(5, 5), (40, 20), (0, 0)], ids=["too small", "exchanged", "none"])
def test_the_size_of_the_file_decides_which_boxes_lie_outside(write_coco: WriteCoco, stated: tuple[int, int]) -> None:
    folder = write_coco([(1, 20, 40)], [annotation(bbox=[30, 10, 5, 5]), annotation(bbox=[5, 25, 5, 5])])
    data = json.loads((folder / "ann.json").read_text())
    data["images"][0] |= {"height": stated[0], "width": stated[1]}
    (folder / "ann.json").write_text(json.dumps(data))
    dataset = open_coco(folder)
    assert dataset.read(0)[1].boxes.tolist() == [[30, 10, 35, 15]]
    assert dataset.measured_sizes().tolist() == [[20, 40]] and dataset.sizes.tolist() == [list(stated)]


def test_crowds_become_ignore_regions_and_count_as_empty(write_coco: WriteCoco) -> None:
    images = [(1, 20, 20), (2, 20, 20), (3, 20, 20), (4, 20, 20)]
    annotations = [
        annotation(1, 3, [1, 1, 2, 2]),
        annotation(1, 7, [4, 4, 5, 5], iscrowd=1),
        annotation(2, 3, [4, 4, 5, 5], iscrowd=1),
        annotation(3, 3, [4, 4, 0, 5]),
    ]
    folder = write_coco(images, annotations)
    full = open_coco(folder)
    assert len(full) == 4 and [full.num_boxes(i) for i in range(4)] == [1, 0, 0, 0]
    assert [full.labels(i).tolist() for i in range(4)] == [[0], [], [], []]
    assert full.read(0)[1].ignore.tolist() == [False, True]
    assert full.read(1)[1].ignore.tolist() == [True]
    empty = full.read(3)[1]
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == (0,)
    assert (str(empty.boxes.dtype), str(empty.labels.dtype)) == ("torch.float32", "torch.int64")
    filtered = open_coco(folder, filter_empty=True)
    assert filtered.image_ids == [1]
    assert filtered.read(0)[1].boxes.tolist() == [[1, 1, 3, 3], [4, 4, 9, 9]]


def test_sizes_may_be_missing_or_wrong(write_coco: WriteCoco) -> None:
    folder = write_coco([(1, 20, 30), (2, 10, 40)], [annotation()], with_sizes=False)
    dataset = open_coco(folder)
    assert dataset.sizes.tolist() == [[0, 0], [0, 0]]
    assert dataset.measured_sizes().tolist() == [[20, 30], [10, 40]]
    (folder / "images" / "1.png").unlink()
    assert dataset.measured_sizes().tolist() == [[20, 30], [10, 40]]  # read once
    assert open_coco(folder).measured_sizes().tolist() == [[20, 30], [0, 0]]

    other = write_coco([(1, 20, 30)], [annotation(bbox=[0, 0, 99, 99])], name="other")
    cv2.imwrite(str(other / "images" / "0.png"), np.zeros((15, 25, 3), np.uint8))
    _, targets = open_coco(other).read(0)
    assert targets.size == (15, 25) and targets.boxes.tolist() == [[0, 0, 25, 15]]


def test_areas_and_crowds_are_complete(write_coco: WriteCoco) -> None:
    folder = write_coco(
        [(1, 20, 20), (2, 20, 20)],
        [annotation(1, 3, [1, 1, 2, 3], id=0), annotation(2, 7, [1, 1, 2, 2], iscrowd=1)],
    )
    annotations = open_coco(folder).annotations
    assert annotations.areas.tolist() == [6.0, 4.0]
    assert annotations.crowd.tolist() == [False, True]

    kept = write_coco([(1, 20, 20)], [annotation(id=9, area=1.5)], name="other")
    assert open_coco(kept).annotations.areas.tolist() == [1.5]


def test_a_data_set_is_parsed_once(write_coco: WriteCoco) -> None:
    folder = write_coco([(1, 20, 20), (2, 20, 20)], [annotation(2)])
    dataset = open_coco(folder, class_names=["hole", "scratch", "stain"], filter_empty=True)
    (folder / "ann.json").rename(folder / "moved.json")
    assert list(dataset.annotations.image_ids) == [1, 2] and dataset.image_ids == [2]
    copy = pickle.loads(pickle.dumps(dataset))  # as a spawned loader worker gets it
    assert copy.read(0)[1].boxes.tolist() == [[1, 2, 4, 6]] and copy.image_ids == [2]
    (folder / "moved.json").rename(folder / "ann.json")
    assert copy.annotations.category_names == dataset.annotations.category_names == ["scratch", "hole", "stain"]


def test_text_image_ids_and_unicode_names(write_coco: WriteCoco) -> None:
    folder = write_coco([("röll-1", 20, 20), ("b", 20, 20)], [annotation("b")])
    (folder / "images" / "1.png").rename(folder / "images" / "织物 1.png")
    text = (folder / "ann.json").read_text().replace("1.png", "织物 1.png")
    (folder / "ann.json").write_text(text, encoding="utf-8-sig")
    dataset = open_coco(folder)
    assert dataset.image_ids == ["röll-1", "b"]
    assert dataset.read(1)[1].image_id == "b"


def test_text_category_ids_and_classes_that_the_file_lacks(write_coco: WriteCoco) -> None:
    folder = write_coco(
        [(1, 20, 20)], [annotation(1, "b"), annotation(1, "2")], categories=(("b", "hole"), ("2", "stain"))
    )
    dataset = open_coco(folder, class_names=["scratch", "hole", "stain"])
    assert dataset.category_ids == ["1", "b", "2"] and dataset.annotations.category_ids == ["2", "b", "1"]
    assert dataset.read(0)[1].labels.tolist() == [1, 2]


def test_a_test_set_without_annotations(write_coco: WriteCoco) -> None:
    folder = write_coco([(1, 20, 20)], [])
    data = json.loads((folder / "ann.json").read_text())
    del data["annotations"]
    (folder / "ann.json").write_text(json.dumps(data))
    dataset = open_coco(folder)
    assert dataset.num_boxes(0) == 0 and dataset.annotations.boxes_xywh.shape == (0, 4)


def test_unreadable_image_names_file_and_id(write_coco: WriteCoco) -> None:
    folder = write_coco([(41, 20, 20)], [])
    (folder / "images" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"0\.png.*data set toy, image id 41"):
        open_coco(folder).read(0)


def test_concatenation(write_coco: WriteCoco) -> None:
    first = open_coco(write_coco([(1, 20, 20), (2, 20, 20)], [annotation(1, 3)]))
    second = open_coco(
        write_coco(
            [(1, 10, 30)],
            [annotation(1, 5, [1, 1, 2, 2])],
            categories=((5, "scratch"), (9, "hole")),
            name="other",
        )
    )
    both = ConcatDataset([first, second])
    assert len(both) == 3 and both.image_ids == [1, 2, 1]
    assert both.sizes.tolist() == [[20, 20], [20, 20], [10, 30]]
    assert [both.num_boxes(i) for i in range(3)] == [1, 0, 1]
    second.repeat = 2.5
    assert both.labels(2).tolist() == [0] and [both.repeat_of(i) for i in range(3)] == [1.0, 1.0, 2.5]
    assert both.read(2)[0].shape == (10, 30, 3)
    third = open_coco(write_coco([(1, 5, 5)], [], categories=((1, "stain"),), name="third"))
    with pytest.raises(InputError, match="toy and third.*scratch, hole / stain"):
        ConcatDataset([first, third])


def test_large_data_set_is_flat_and_small(tmp_path: Path) -> None:
    num_images, num_boxes = 20_000, 200_000
    images = [{"id": i, "file_name": f"train/{i:012d}.jpg"} for i in range(num_images)]
    row = {"category_id": 1, "bbox": [1, 2, 3, 4]}
    annotations = [{"image_id": i % num_images, **row} for i in range(num_boxes)]
    categories = [{"id": 1, "name": "a"}]
    path = tmp_path / "ann.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    dataset = CocoDataset("large", tmp_path, path)
    assert len(pickle.dumps(dataset)) < 10e6
    long_containers = [
        name
        for name, value in vars(dataset).items()
        if isinstance(value, (list, tuple, dict, set)) and len(value) > 100
    ]
    assert long_containers == []
    annotations = vars(dataset.annotations)
    assert [key for key, value in annotations.items() if isinstance(value, list) and len(value) > 100] == []
    assert len(pickle.dumps(dataset.annotations)) < 100 * num_boxes
    assert dataset.image_path(19_999) == tmp_path / "train/000000019999.jpg"


def test_real_sets(data_dir: Path) -> None:
    tiny = data_dir / "tiny_coco"
    dataset = CocoDataset("tiny", tiny / "train", tiny / "annotations" / "instances_train.json")
    assert len(dataset) == 32 and len(dataset.class_names) == 80
    assert dataset.category_ids[11] == 13
    targets = [dataset.read(index)[1] for index in range(32)]
    assert sum(int(target.ignore.sum()) for target in targets) == 4
    assert sum(len(target) for target in targets) == 288
    empty = [index for index in range(32) if dataset.num_boxes(index) == 0]
    kept = CocoDataset("tiny", tiny / "train", tiny / "annotations" / "instances_train.json", filter_empty=True)
    assert len(kept) == 32 - len(empty)

    bccd = data_dir / "bccd"
    cells = CocoDataset("bccd", bccd / "val", bccd / "annotations" / "instances_val.json")
    assert sum(cells.num_boxes(index) for index in range(72)) == 964
    assert len(cells.annotations.boxes_xywh) == 966


@pytest.mark.parametrize(
    ("rule", "size", "boxes"),
    [("auto", (20, 40), [[30, 10, 35, 15]]), ("apply", (40, 20), []), ("ignore", (20, 40), [[30, 10, 35, 15]])],
)
def test_the_orientation_decides_size_and_boxes(
    write_coco: WriteCoco, rule: str, size: tuple[int, int], boxes: list[list[float]]
) -> None:
    """A file that EXIF turns, with boxes on the stored pixels."""
    folder = write_coco([(1, 20, 40)], [annotation(bbox=[30, 10, 5, 5])])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "images" / "0.png").save(folder / "images" / "0.png", exif=exif)
    dataset = open_coco(folder)
    dataset.orientation = rule
    both = ConcatDataset([dataset, dataset])
    assert both.reading.orientation == rule
    image, targets = both.read(1)
    assert image.shape[:2] == size and targets.boxes.tolist() == boxes
    assert both.measured_sizes().tolist() == [list(size)] * 2
