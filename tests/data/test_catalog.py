from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.catalog import BUILTIN, resolve
from engine.errors import InputError


def test_builtin_names_are_the_reference_ones() -> None:
    assert BUILTIN["coco_2017_train"] == {
        "img_dir": "coco/train2017",
        "ann_file": "coco/annotations/instances_train2017.json",
    }
    assert BUILTIN["coco_2014_minival"] == {
        "img_dir": "coco/val2014",
        "ann_file": "coco/annotations/instances_minival2014.json",
    }
    assert BUILTIN["coco_2017_test_dev"]["ann_file"].endswith("image_info_test-dev2017.json")
    assert BUILTIN["voc_2012_val_cocostyle"]["img_dir"] == "voc/VOC2012/JPEGImages"


def test_declared_names_win_and_relative_paths_hang_below_root(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "a.json").write_text("{}")
    entry = {"img_dir": "pics", "ann_file": "a.json"}
    for name in ("cloth", "coco_2017_val"):
        paths = resolve(name, tmp_path, {name: entry})
        assert (paths.name, paths.img_dir, paths.ann_file) == (
            name,
            tmp_path / "pics",
            tmp_path / "a.json",
        )
    absolute = {"img_dir": str(tmp_path / "pics"), "ann_file": str(tmp_path / "a.json")}
    assert resolve("cloth", "elsewhere", {"cloth": absolute}).img_dir == tmp_path / "pics"


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("coco_2017_trian", None, ["coco_2017_trian", "did you mean coco_2017_train"]),
        ("cloth_tran", {"img_dir": "pics", "ann_file": "a.json"}, ["did you mean cloth_train"]),
        ("cloth_train", {"img_dir": "pics"}, ["DATASETS.CATALOG.cloth_train", "ann_file"]),
        ("cloth_train", {"img_dir": "pics", "ann_file": "b.json"}, ["b.json", "DATASETS.ROOT"]),
        ("cloth_train", {"img_dir": "none", "ann_file": "a.json"}, ["none", "image folder"]),
        ("cloth_train", "pics", ["mapping"]),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, name: str, entry: object, words: list[str]) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        resolve(name, tmp_path, {"cloth_train": entry} if entry else {})
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
