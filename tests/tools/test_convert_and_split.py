"""tools/convert_dataset.py and tools/split_dataset.py as commands."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from engine.errors import InputError
from tests.data.formats.test_readers import voc, voc_object, write
from tests.end_to_end.conftest import run

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def boxes(path: Path) -> list[tuple[int, int, list[float]]]:
    return [(row["image_id"], row["category_id"], row["bbox"]) for row in json.loads(path.read_text())["annotations"]]


def test_raw_bccd_becomes_the_coco_files(data_dir: Path, tmp_path: Path) -> None:
    """The conversion and the split of its SOURCE.md: every fifth image, ids and all."""
    converted = run(
        ["tools/convert_dataset.py", data_dir / "raw/bccd_voc/Annotations", tmp_path / "all.json", "--to", "coco"]
    )
    assert converted.returncode == 0 and not converted.stderr, converted.stderr
    assert "voc, 364 images, 4888 boxes, 3 classes" in converted.stdout
    done = run(["tools/split_dataset.py", tmp_path / "all.json", tmp_path / "splits", "--every", "5"])
    assert done.returncode == 0 and not done.stderr, done.stderr
    for part in ("train", "val"):
        mine = json.loads((tmp_path / "splits" / f"{part}.json").read_text())
        theirs = json.loads((data_dir / "bccd" / "annotations" / f"instances_{part}.json").read_text())
        for section, keys in {
            "images": ("id", "file_name", "width", "height"),
            "categories": ("id", "name"),
            "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
        }.items():
            assert [[row[key] for key in keys] for row in mine[section]] == [
                [row[key] for key in keys] for row in theirs[section]
            ]


def test_raw_deeppcb_becomes_the_coco_files(data_dir: Path, tmp_path: Path) -> None:
    """Its ids of images are those of the whole set, of which every third image is here."""
    names = "open,short,mousebite,spur,copper,pin-hole"
    raw = data_dir / "raw" / "deeppcb_txt"
    done = run(["tools/convert_dataset.py", raw, tmp_path / "all.json", "--to", "coco", "--classes", names])
    assert done.returncode == 0 and not done.stderr, done.stderr
    mine = json.loads((tmp_path / "all.json").read_text())
    own = {row["id"]: row["file_name"] for row in mine["images"]}
    found = [(own[image], category, box) for image, category, box in boxes(tmp_path / "all.json")]
    expected = []
    for part in ("train", "val"):
        path = data_dir / "deeppcb" / "annotations" / f"instances_{part}.json"
        theirs = json.loads(path.read_text())
        file_names = {row["id"]: row["file_name"] for row in theirs["images"]}
        expected += [(file_names[image], category, box) for image, category, box in boxes(path)]
        assert [(row["id"], row["name"]) for row in theirs["categories"]] == [
            (row["id"], row["name"]) for row in mine["categories"]
        ]
    assert found == sorted(expected, key=lambda row: row[0])


def test_what_is_lost_and_the_entry_of_the_catalog(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "JPEGImages/ü 1.jpg": "",
            "Annotations/ü 1.xml": voc(voc_object() + voc_object(more="<difficult>1</difficult>")),
        },
    )
    out = tmp_path / "yolo"
    done = run(
        [
            "tools/convert_dataset.py",
            tmp_path / "Annotations",
            out,
            "--to",
            "yolo",
            "--images",
            tmp_path / "JPEGImages",
            "--link",
        ]
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "in yolo: 1 ignore regions are left out" in done.stdout
    assert f"NAME: {{img_dir: {out}/images, ann_file: {out}/data.yaml, format: yolo}}" in done.stdout
    assert (out / "images" / "ü 1.jpg").is_symlink() and (out / "labels" / "ü 1.txt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Annotations", "JPEGImages", "yolo"]


def test_folds_of_a_format_other_than_coco(tmp_path: Path) -> None:
    write(tmp_path, {f"ann/{k}.txt": f"1 2 3 {k + 5} {'hole' if k else 'dent'}\n" for k in range(7)})
    out = tmp_path / "out"
    done = run(["tools/split_dataset.py", tmp_path / "ann", out, "--folds", "3", "--stratify", "--seed", "4"])
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        f"fold{k}_{part}.json" for k in range(3) for part in ("train", "val")
    ]
    names = [
        {row["file_name"] for row in json.loads((out / f"fold{k}_{part}.json").read_text())["images"]}
        for part in ("val", "train")
        for k in range(3)
    ]
    assert sum(map(len, names[:3])) == 7 and set().union(*names[:3]) == {f"{k}.jpg" for k in range(7)}
    assert all(val | train == {f"{k}.jpg" for k in range(7)} for val, train in zip(names[:3], names[3:], strict=True))
    assert done.stdout.count("no box of 'dent' in val (of 1, in 1 images)") == 2
    assert "fold0" in done.stdout and "images" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tools/convert_dataset.py", "ann", "out", "--to", "voca"], "did you mean voc"),
        (
            ["tools/convert_dataset.py", "ann", "out", "--to", "voc", "--from", "tx"],
            "--from: nothing is registered as tx",
        ),
        (["tools/convert_dataset.py", "ann", "ann", "--to", "voc"], "ann: exists already; name another place"),
        (["tools/convert_dataset.py", "none", "out", "--to", "voc"], "none: cannot be read"),
        (["tools/convert_dataset.py", "ann", "out", "--to", "yolo"], "its size is not known"),
        (
            ["tools/convert_dataset.py", "ann", "out.csv", "--to", "csv", "--classes", "a,b"],
            "--classes: do its names count",
        ),
        (["tools/split_dataset.py", "ann", "out", "--ratio", "1", "1", "--group", "(x)"], "matches no name"),
        (["tools/convert_dataset.py", "ann", "out", "--to", "csv", "--classes", "5,5"], "has the class '5' twice"),
        (["tools/split_dataset.py", "ann", "out", "--folds", "9"], "has 1 images (or groups of them), too few"),
        (["tools/split_dataset.py", "ann", "ann", "--every", "2", "--images", "x"], "x: is no folder"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    write(tmp_path / "ann", {"a.txt": "1 2 3 4 5\n"})
    words = [str(tmp_path / each) if each in ("ann", "out", "out.csv", "none", "x") else each for each in words]
    done = run(words)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["ann"]


@pytest.mark.parametrize(
    "words", [["--ratio", "1"], ["--ratio", "1", "0"], ["--folds", "1"], ["--every", "2", "--stratify"]]
)
def test_flags_that_cannot_be(tmp_path: Path, words: list[str]) -> None:
    done = run(["tools/split_dataset.py", tmp_path, tmp_path / "out", *words])
    assert done.returncode == 2 and "error: --" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ratio", "0.98", "0.01", "0.01"], "val would get none of its 3 images; give it a larger share"),
        (["--ratio", "1e308", "1e308"], "--ratio needs two or more positive numbers"),
        (["--folds", "0"], "--folds and --every need 2 or more"),
        (["--every", "2", "--names", "train"], "there are 2 splits; give as many --names"),
    ],
)
def test_slips_of_splits_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    main = runpy.run_path(str(TOOLS / "split_dataset.py"))["main"]
    write(tmp_path / "ann", {f"{name}.txt": "1 2 3 4 5\n" for name in "abc"})
    with pytest.raises((InputError, SystemExit)) as error:
        main([str(tmp_path / "ann"), str(tmp_path / "out"), *words])
    assert message in f"{error.value} {capsys.readouterr().err}" and not (tmp_path / "out").exists()
