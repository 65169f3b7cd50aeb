from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError
from engine.visualize.colors import class_color
from tests.conftest import WriteCoco

ROOT = Path(__file__).resolve().parents[2]
HOLE, SCRATCH = 1, 0  # labels: category ids 7 and 3, ascending


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(ROOT / "tools/draw_dataset.py"))["main"](list(map(str, arguments)))


def num_pixels(picture: np.ndarray, label: int) -> int:
    """Pixels with exactly the colour of a class."""
    return int((picture == np.array(class_color(label)[::-1], np.uint8)).all(axis=2).sum())


@pytest.fixture
def config(tmp_path: Path, write_coco: WriteCoco) -> Path:
    """Three images of 80 x 100: a hole, a scratch and a crowd, nothing."""
    boxes = [(5, 7, [10, 10, 30, 20], 0), (6, 3, [20, 30, 50, 5], 0), (6, 7, [60, 5, 20, 15], 1)]
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": crowd}
        for k, (i, c, box, crowd) in enumerate(boxes, 1)
    ]
    write_coco([(5, 80, 100), (6, 80, 100), (8, 80, 100)], annotations)
    path = tmp_path / "config.yaml"
    path.write_text(
        f"_BASE_: {ROOT}/configs/quickstart/_base_atss_R_18_cpu.yaml\n"
        f"DATASETS: {{ROOT: {tmp_path}, CATALOG: {{toy: {{img_dir: toy/images, ann_file: toy/ann.json}}}}, "
        "TRAIN: [toy], TEST: [toy]}"
    )
    return path


def test_ground_truth_of_each_image_and_of_all(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    main("--config-file", config, "--output-dir", out, "--num-images", 0, "--columns", 2, "--hide-labels")
    assert sorted(path.name for path in (out / "toy").iterdir()) == ["000_0.png", "001_1.png", "002_2.png"]
    pictures = [cv2.imread(str(path)) for path in sorted((out / "toy").iterdir())]
    assert all(picture.shape[0] > 80 and picture.shape[1] == 100 for picture in pictures)  # with a title
    assert num_pixels(pictures[0], HOLE) > 90 and not num_pixels(pictures[0], SCRATCH)
    assert num_pixels(pictures[1], SCRATCH) > 90 and not num_pixels(pictures[1], HOLE)  # the crowd is grey
    assert not num_pixels(pictures[2], HOLE) + num_pixels(pictures[2], SCRATCH)
    sheet = cv2.imread(str(out / "toy.png"))
    assert sheet.shape[1] == 2 * 480 + 3 * 8 and sheet.shape[0] > 2 * 80 * 4.8
    assert f"3 of 3 images of toy drawn into {out / 'toy'}" in capsys.readouterr().out


def test_the_images_depend_on_the_seed_alone(config: Path, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1)):
        main("--config-file", config, "--output-dir", tmp_path / folder, "--num-images", 2, "--seed", seed)
    names = [sorted(path.name for path in (tmp_path / folder / "toy").iterdir()) for folder in ("a", "b")]
    assert len(names[0]) == 2 and names[0] == names[1]


def test_detections_beside_the_ground_truth(config: Path, tmp_path: Path) -> None:
    results = [
        {"image_id": 5, "category_id": 3, "bbox": [50, 40, 30, 20], "score": 0.6},
        {"image_id": 5, "category_id": 7, "bbox": [50, 40, 30, 20], "score": 0.4},
    ]
    (tmp_path / "bbox.json").write_text(json.dumps(results))
    options = ("--config-file", config, "--output-dir", tmp_path / "out", "--results", tmp_path / "bbox.json")
    main(*options, "--threshold", 0.5, "--num-images", 0)
    picture = cv2.imread(str(tmp_path / "out" / "toy" / "000_0.png"))
    truth, found = picture[:, :100], picture[:, -100:]
    assert num_pixels(truth, HOLE) and not num_pixels(truth, SCRATCH)
    assert num_pixels(found, SCRATCH) and not num_pixels(found, HOLE)  # its score is below the threshold
    (tmp_path / "bbox.json").write_text(json.dumps([{**results[0], "image_id": 7}]))
    with pytest.raises(InputError, match="bbox.json: entry 0: image_id 7 is not in the annotations"):
        main(*options)


def test_an_unreadable_image_is_skipped(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images = sorted((tmp_path / "toy" / "images").iterdir())
    images[1].write_bytes(b"no picture")
    main("--config-file", config, "--output-dir", tmp_path / "out")
    told = capsys.readouterr().out
    assert "skipped: " in told and images[1].name in told and "2 of 3 images" in told
    for image in images:
        image.write_bytes(b"no picture")
    with pytest.raises(InputError, match="'toy': none of 3 images can be read"):
        main("--config-file", config, "--output-dir", tmp_path / "out")


def test_nothing_to_draw_is_one_line(config: Path) -> None:
    with pytest.raises(InputError, match="DATASETS.TRAIN is empty; name a data set"):
        main("--config-file", config, "DATASETS.TRAIN", "()")
    with pytest.raises(InputError, match="unknown data set 'toi'; did you mean toy"):
        main("--config-file", config, "--dataset", "toi")


def test_names_that_repeat_or_cannot_be_written(config: Path, tmp_path: Path) -> None:
    """Equal names in two sub-folders, and suffixes of formats that we read but do not write."""
    images = tmp_path / "toy" / "images"
    for number, name in enumerate(("left/a.webp", "right/a.webp", "frame")):
        (images / name).parent.mkdir(exist_ok=True)
        (images / f"{number}.png").rename(images / name)
    content = json.loads((tmp_path / "toy" / "ann.json").read_text())
    for row, name in zip(content["images"], ("left/a.webp", "right/a.webp", "frame"), strict=True):
        row["file_name"] = name
    (tmp_path / "toy" / "ann.json").write_text(json.dumps(content))
    main("--config-file", config, "--output-dir", tmp_path / "out", "--num-images", 0)
    assert sorted(path.name for path in (tmp_path / "out" / "toy").iterdir()) == [
        "000_a.webp",
        "001_a.webp",
        "002_frame.png",
    ]


@pytest.mark.parametrize("output", ["toy/images", "link", "above"])
def test_pictures_never_stand_among_the_images(config: Path, tmp_path: Path, output: str) -> None:
    images = tmp_path / "toy" / "images"
    (tmp_path / "link").symlink_to(images, target_is_directory=True)
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "toy").symlink_to(images, target_is_directory=True)
    before = sorted(images.iterdir())
    with pytest.raises(InputError, match="among the images; name another --output-dir"):
        main("--config-file", config, "--output-dir", tmp_path / output)
    assert sorted(images.iterdir()) == before
