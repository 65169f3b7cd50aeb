"""From a folder in some format to a configuration that trains, with tools/new_config.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.analysis.timing import StepTime
from engine.assembly.new_config import new_config as config_of
from engine.assembly.new_settings import LARGE_BASE, Request
from engine.config import CfgNode, load_config
from engine.data.formats import coco
from engine.data.image_file import write_image
from engine.errors import InputError
from tests.end_to_end.conftest import REPOSITORY, World, run

QUICK = ("--minutes", "0.5", "--device", "cpu")


def new_config(*arguments: str | Path, cwd: Path = REPOSITORY) -> str:
    done = run([REPOSITORY / "tools/new_config.py", *arguments, *QUICK], cwd)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def train(config: Path, folder: Path, cwd: Path = REPOSITORY) -> dict:
    """Two steps of the file as it is; other keys only make it quick."""
    keys = ["SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "0", "INPUT.MIN_SIZE_TRAIN", "(64,)", "OUTPUT_DIR", folder]
    done = run([REPOSITORY / "tools/train_net.py", "--config-file", config, *keys], cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    (metrics,) = (folder / "inference").glob("*/metrics.json")
    return json.loads(metrics.read_text(encoding="utf-8"))


def as_voc(world: World, folder: Path, class_names: dict[str, str]) -> None:
    """The training images of `world` as a VOC folder; the classes under other names."""
    data = json.loads((world.root / "annotations/instances_train.json").read_text())
    shutil.copytree(world.root / "train", folder / "JPEGImages")
    names = {each["id"]: class_names.get(each["name"], each["name"]) for each in data["categories"]}
    for image in data["images"]:
        objects = "".join(
            f"<object><name>{names[each['category_id']]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for each in data["annotations"]
            if each["image_id"] == image["id"]
            for x, y, w, h in [each["bbox"]]
        )
        path = folder / "Annotations" / f"{Path(image['file_name']).stem}.xml"
        path.parent.mkdir(exist_ok=True)
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        text = f"<annotation><filename>{image['file_name']}</filename>{size}{objects}</annotation>"
        path.write_text(text, encoding="utf-8")


def as_yolo(world: World, folder: Path) -> None:
    """Both splits of `world` with a `data.yaml`."""
    for split in ("train", "val"):
        data = json.loads((world.root / f"annotations/instances_{split}.json").read_text())
        shutil.copytree(world.root / split, folder / "images" / split)
        (folder / "labels" / split).mkdir(parents=True)
        for image in data["images"]:
            lines = [
                f"{each['category_id'] - 1} {(x + w / 2) / image['width']} {(y + h / 2) / image['height']} "
                f"{w / image['width']} {h / image['height']}\n"
                for each in data["annotations"]
                if each["image_id"] == image["id"]
                for x, y, w, h in [each["bbox"]]
            ]
            (folder / "labels" / split / f"{Path(image['file_name']).stem}.txt").write_text("".join(lines))
    names = [each["name"] for each in data["categories"]]
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {json.dumps(names)}\n")


def check(path: Path) -> CfgNode:
    cfg = load_config(path, [])
    assert Path(cfg.DATASETS.ROOT).is_absolute() and f"outputs/{path.stem}" == cfg.OUTPUT_DIR
    lines = path.read_text(encoding="utf-8").splitlines()
    decided = ("MIN_SIZE_TRAIN", "ANCHOR_SIZES", "NUM_WORKERS", "IMS_PER_BATCH", "BASE_LR", "MAX_ITER")
    for key in decided:
        assert any(line.strip().startswith(f"{key}:") and "  # " in line for line in lines), key
    return cfg


def test_coco_with_splits_is_used_as_it_is(world: World, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    output = new_config(world.root, "--output", config)
    assert f"python tools/train_net.py --config-file {config}" in output
    cfg = check(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]
    assert dict(cfg.DATASETS.CATALOG.mine_val) == {"img_dir": "val", "ann_file": "annotations/instances_val.json"}
    assert str(world.root) == cfg.DATASETS.ROOT and cfg.MODEL.DEVICE == "cpu"
    done = run(["tools/new_config.py", world.root, "--output", config])
    assert done.returncode == 2 and done.stderr == (
        f"error: {config}: exists; choose another --output, or replace it with --force\n"
    )


def test_voc_without_a_split_under_odd_names(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "Stücke: #1 'neu' 断纱"
    as_voc(world, folder, {"hole": "yes: {#1} \\ 断纱", "stain": "null", "knot": "1:30"})
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    config = folder.with_suffix(".yaml")
    output = new_config(folder, "--output", config, "--val-share", "0.25", cwd=tmp_path)
    assert "split at random (seed 0), with the same share of each class: 9 images to train on, 3 to test on" in output
    assert {path: path.read_bytes() for path in before} == before
    cfg = check_names(config)
    written = [coco.read(Path(entry["ann_file"])) for entry in cfg.DATASETS.CATALOG.values()]
    assert [len(table.file_names) for table in written] == [9, 3]
    assert not set(written[0].file_names) & set(written[1].file_names)
    assert set(train(config, tmp_path / "run", cwd=tmp_path)["per_class"]) >= {"yes: {#1} \\ 断纱", "null", "1:30"}


def check_names(config: Path) -> CfgNode:
    cfg = load_config(config, [])
    assert all(Path(entry["ann_file"]).is_file() for entry in cfg.DATASETS.CATALOG.values())
    return cfg


@pytest.mark.nightly
def test_yolo_with_data_yaml_trains(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    as_yolo(world, folder)
    config = tmp_path / "parts.yaml"
    new_config(folder, "--output", config)
    cfg = check(config)
    assert cfg.DATASETS.CATALOG.parts_train.format == "yolo" and not (tmp_path / "parts_data").exists()
    assert set(train(config, tmp_path / "run")["per_class"]) == {"hole", "stain", "broken_thread", "knot", "float"}


def test_one_image(world: World, tmp_path: Path, quick_probe: None) -> None:
    data = json.loads((world.root / "annotations/instances_train.json").read_text())
    image = next(each for each in data["images"] if any(a["image_id"] == each["id"] for a in data["annotations"]))
    data["annotations"] = [each for each in data["annotations"] if each["image_id"] == image["id"]]
    data["images"] = [image]
    shutil.copy(world.root / "train" / image["file_name"], tmp_path)
    (tmp_path / "one.json").write_text(json.dumps(data))
    written = config_of(Request(tmp_path / "one.json", (), tmp_path / "one.yaml", device="cpu"))
    assert any("there is only one image" in note for note in written.notes)
    assert float(torch.tensor(1e-40) * 1) > 0  # the caller's floats are as before
    assert load_config(tmp_path / "one.yaml", []).SOLVER.IMS_PER_BATCH == 1


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.assembly.new_config.time_step", lambda *args: StepTime(0.4))


def test_an_unusable_name_is_one_line(tmp_path: Path) -> None:
    done = run([REPOSITORY / "tools/new_config.py", tmp_path, "--output", "mine.json"], cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == "error: mine.json: must be named .yaml\n"


@pytest.mark.parametrize(
    ("data", "images", "answer"),
    [
        ("none", (), "none: is no folder or file"),
        ("empty", (), "empty: holds no images"),
        ("bare", (), "bare: no annotations were found beside its images"),
        ("boxless", (), "there are no boxes to train on"),
        ("x.zip", (), "x.zip: is an archive; unpack it"),
        ("bare", ("nowhere",), "nowhere: is no folder of images"),
        ("bare", ("bare", "boxless/sub"), "are in different folders"),
        ("two", (), "there are several annotations"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    world: World, tmp_path: Path, data: str, images: tuple[str, ...], answer: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("bare", "boxless", "two", "boxless/sub"):
        (tmp_path / name).mkdir()
        shutil.copy(next((world.root / "train").glob("*.jpg")), tmp_path / name / "a.jpg")
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "hole"}]}
    for path in ("boxless/a.json", "two/a.json", "two/b.json"):
        (tmp_path / path).write_text(json.dumps({**content, "annotations": []}))
    (tmp_path / "x.zip").write_bytes(b"PK\3\4")
    before = sorted(tmp_path.rglob("*"))
    request = Request(tmp_path / data, tuple(tmp_path / each for each in images), tmp_path / "mine.yaml", device="cpu")
    with pytest.raises(InputError) as caught:
        config_of(request)
    assert answer in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_on_a_gpu(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written where torch sees a GPU and the weights can be had; nothing is computed there."""
    monkeypatch.setattr("engine.assembly.new_config._body", lambda request: ("cuda", LARGE_BASE, "as usual"))
    monkeypatch.setattr("engine.assembly.new_config.check_data", lambda cfg, quick: SimpleNamespace(findings=[]))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (24e9, 24e9))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    config_of(Request(world.root, (), tmp_path / "gpu.yaml", device="cuda"))
    cfg = load_config(tmp_path / "gpu.yaml", [])
    assert cfg.MODEL.DEVICE == "cuda" and cfg.MODEL.WEIGHT.startswith("catalog://ImageNetPretrained")
    assert cfg.SOLVER.IMS_PER_BATCH == 12 and pytest.approx(0.0075) == cfg.SOLVER.BASE_LR  # twelve images are all
    assert cfg.SOLVER.MAX_ITER == 1000 and cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.SCHEDULE == "cosine"


def test_a_competition_list_of_large_images_is_tiled(tmp_path: Path, quick_probe: None) -> None:
    """Images that the list does not name have no boxes; they are set aside for testing like the others."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(10):
        write_image(tmp_path / "images" / f"{number}.png", np.full((1200, 1600, 3), 10 * number, np.uint8))
        boxes = [[x, 500, x + 12, 512] for x in range(0, 1500, 300)] if number < 6 else []
        rows += [{"name": f"{number}.png", "defect_name": "破洞", "bbox": box} for box in boxes]
    (tmp_path / "anno.json").write_text(json.dumps(rows), encoding="utf-8")
    config_of(Request(tmp_path, (), tmp_path / "big.yaml", device="cpu"))
    cfg = load_config(tmp_path / "big.yaml", [])
    assert cfg.TILING.SIZE and cfg.TILING.OVERLAP >= 16 and cfg.DATALOADER.EMPTY_SHARE == 0.25
    assert pytest.approx(16, abs=3) == cfg.INPUT.MIN_SIZE_TEST / cfg.TILING.SIZE * 12
    tables = [coco.read(Path(entry["ann_file"])) for entry in cfg.DATASETS.CATALOG.values()]
    assert [len(table.file_names) for table in tables] == [8, 2]


def test_files_that_cannot_be_read_and_have_no_stated_size(tmp_path: Path, quick_probe: None) -> None:
    """Images without a file are in neither split; if none can be read, nothing is left beside the configuration."""
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("1 2 30 40 hole\n")
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    request = Request(tmp_path, (), tmp_path / "mine.yaml", device="cpu")
    with pytest.raises(InputError, match="none of its images can be read"):
        config_of(request)
    assert sorted(tmp_path.rglob("*")) == before
    for number in range(4):
        write_image(tmp_path / f"{number}.jpg", np.full((60, 80, 3), 10 * number, np.uint8))
    (tmp_path / "lost.txt").write_text("1 2 30 40 hole\n")
    written = config_of(request)
    assert any("5 images to train on, 1 to test on" in note for note in written.notes)
    assert "FILE_UNREADABLE" in {each.code for each in written.findings}
