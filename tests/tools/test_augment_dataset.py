from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.data.dataset import CocoDataset
from engine.errors import InputError
from tests.conftest import WriteCoco

ROOT = Path(__file__).resolve().parents[2]


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(ROOT / "tools/augment_dataset.py"))["main"](list(map(str, arguments)))


@pytest.fixture
def config(tmp_path: Path, write_coco: WriteCoco) -> Path:
    """Three images of 40 x 50: a hole, a scratch and a crowd, nothing; turned to 50 x 40."""
    boxes = [(5, 7, [10, 10, 30, 20], 0), (6, 3, [20, 30, 25, 5], 0), (6, 7, [0, 5, 20, 15], 1)]
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": crowd}
        for k, (i, c, box, crowd) in enumerate(boxes, 1)
    ]
    write_coco([(5, 40, 50), (6, 40, 50), (8, 40, 50)], annotations)
    path = tmp_path / "config.yaml"
    path.write_text(
        f"_BASE_: {ROOT}/configs/quickstart/_base_atss_R_18_cpu.yaml\n"
        f"DATASETS: {{ROOT: {tmp_path}, CATALOG: {{toy: {{img_dir: toy/images, ann_file: toy/ann.json}}}}, "
        "TRAIN: [toy], TEST: [toy]}\nINPUT: {AUGMENTATIONS: [{name: Rotate90, turns: [1], prob: 1}]}\n"
    )
    return path


def test_a_turned_copy_and_the_originals(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    main("--config-file", config, "--output", out, "--with-originals")
    content = json.loads((out / "annotations/instances.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5, 6]
    assert [image["source_id"] for image in content["images"]] == [5, 5, 6, 6, 8, 8]
    assert content["categories"] == [{"id": 3, "name": "scratch"}, {"id": 7, "name": "hole"}]
    first = content["images"][0]
    assert (out / "images" / first["file_name"]).read_bytes() == (tmp_path / "toy/images/0.png").read_bytes()
    turned = content["images"][1]
    assert (turned["height"], turned["width"]) == (50, 40) and turned["file_name"] == "000001_1_0.png"
    before, after = cv2.imread(str(tmp_path / "toy/images/0.png")), cv2.imread(str(out / "images/000001_1_0.png"))
    assert np.array_equal(np.rot90(before), after)
    boxes = {(each["image_id"], each["category_id"], each["iscrowd"]): each["bbox"] for each in content["annotations"]}
    assert boxes == {
        (1, 7, 0): [10, 10, 30, 20],
        (2, 7, 0): [10, 10, 20, 30],  # x from 10..40 of 50 becomes y 10..40
        (3, 3, 0): [20, 30, 25, 5],
        (3, 7, 1): [0, 5, 20, 15],
        (4, 3, 0): [30, 5, 5, 25],
        (4, 7, 1): [5, 30, 15, 20],
    }
    assert len(CocoDataset("new", out / "images", out / "annotations/instances.json")) == 6
    printed = capsys.readouterr().out
    assert "6 images with 4 boxes written, and 2 ignore regions" in printed and str(out / "images") in printed


def test_copies_differ_and_the_seed_repeats_them(config: Path, tmp_path: Path) -> None:
    steps = "[{'name': 'Mosaic', 'prob': 1}, {'name': 'CopyPaste', 'prob': 1}, {'name': 'Noise', 'prob': 1}]"

    def files(name: str, seed: int) -> dict[str, bytes]:
        out = tmp_path / name
        main("--config-file", config, "--output", out, "--copies", 2, "--seed", seed, "INPUT.AUGMENTATIONS", steps)
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    first = files("a", 1)
    assert len(first) == 7 and first == files("b", 1) and first != files("c", 2)
    assert len(set(first.values())) == 7


def test_an_unreadable_image_is_left_out_and_named(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "toy/images/1.png").write_bytes(b"nothing")
    main("--config-file", config, "--output", tmp_path / "out")
    assert len(list((tmp_path / "out/images").iterdir())) == 2
    assert "skipped: " in (said := capsys.readouterr().out) and "1.png: damaged" in said


def test_deep_images_keep_their_levels(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    deep = (np.arange(40 * 50).reshape(40, 50) * 2).astype(np.uint16)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"toy/images/{number}.png"), deep)
    main("--config-file", config, "--output", tmp_path / "out", "INPUT.VALUE_RANGE", "(0, 4095)")
    written = cv2.imread(str(tmp_path / "out/images/000001_1_0.png"), cv2.IMREAD_UNCHANGED)
    written = written[..., 0] if written.ndim == 3 else written
    assert written.dtype == np.uint16 and len(np.unique(written)) == 2000
    assert np.abs(np.rot90(deep) / 4095 - written / 65535).max() < 2e-5
    assert "INPUT.VALUE_RANGE: (0, 65535)" in capsys.readouterr().out


def test_tiles_are_left_to_the_training(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main("--config-file", config, "--output", tmp_path / "out", "TILING.SIZE", "32")
    printed = capsys.readouterr().out
    assert printed.count("TILING: whole images are augmented") == 1 and "3 images with 2 boxes" in printed


def test_mistakes_leave_nothing(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="INPUT.AUGMENTATIONS is empty"):
        main("--config-file", config, "--output", out, "INPUT.AUGMENTATIONS", "()")
    with pytest.raises(InputError, match="no class 'hol'; did you mean hole?"):
        steps = "[{'name': 'CopyPaste', 'classes': ['hol']}]"
        main("--config-file", config, "--output", out, "INPUT.AUGMENTATIONS", steps)
    for number in range(3):
        (tmp_path / f"toy/images/{number}.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="none of 3 images can be read; the first: "):
        main("--config-file", config, "--output", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "toy"]
    out.mkdir()
    with pytest.raises(InputError, match="exists already"):
        main("--config-file", config, "--output", out)
