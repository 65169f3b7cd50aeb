"""`tools/check_dataset.py` as a command: exit codes, files, what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.assembly.planted import Toy, toy_in, write_base
from tests.end_to_end.conftest import run


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return toy_in(tmp_path / "toy", write_base(tmp_path / "base"))


def check(toy: Toy, *options: str) -> tuple[int, str, str]:
    toy.save()
    keys = ["DATASETS.ROOT", str(toy.root), "OUTPUT_DIR", str(toy.root / "out"), *map(str, toy.keys)]
    done = run(["tools/check_dataset.py", "--config-file", toy.config, *options, *keys])
    return done.returncode, done.stdout, done.stderr


def test_warnings_do_not_fail_and_are_written(toy: Toy) -> None:
    toy.boxes[0]["bbox"][2] = 0
    code, output, errors = check(toy)
    assert (code, errors) == (0, "")
    assert "BOX_NO_AREA toy_train: 1 of 36 boxes have no area and are dropped" in output
    report = json.loads((toy.root / "out" / "check" / "report.json").read_text())
    (finding,) = (each for each in report["findings"] if each["code"] == "BOX_NO_AREA")
    assert finding["dataset"] == "toy_train" and finding["count"] == 1 and finding["severity"] == "warning"
    assert finding["examples"][0]["file"] == "1.png" and finding["examples"][0]["box"][2] == 0
    assert report["counts"]["error"] == 0 and report["datasets"]["toy_train"]["num_images"] == 12


def test_errors_fail_and_mistakes_of_the_command_differ(toy: Toy) -> None:
    toy.boxes[0]["category_id"] = 77
    code, output, errors = check(toy, "--quick")
    assert (code, errors) == (1, "") and "ID_UNKNOWN" in output and "no images opened" in output
    toy.set("SOLVER.BASE_LRR", 1)
    code, output, errors = check(toy, "--quick")
    assert code == 2 and errors.startswith("error: ") and not output


def test_a_cleaned_copy_is_written_whole_or_not_at_all(toy: Toy) -> None:
    toy.boxes[0] |= {"bbox": [100, 5, 60, 20], "area": 560}
    toy.boxes[1]["category_id"] = 77
    toy.image(3).unlink()
    toy.save()
    before = (toy.root / "train.json").read_bytes()
    fixed = toy.root / "fixed"
    code, output, errors = check(toy, "--fix", str(fixed))
    assert (code, errors) == (1, "") and (toy.root / "train.json").read_bytes() == before
    assert sorted(path.name for path in fixed.iterdir()) == ["changes.json", "toy_train.json", "toy_val.json"]
    changes = json.loads((fixed / "changes.json").read_text())["toy_train"]["changes"]
    assert {each["code"] for each in changes} == {"BOX_REACHES_OUT", "ID_UNKNOWN", "FILE_UNREADABLE"}
    assert "toy_val: toy_val.json: nothing to change" in output
    code, _, errors = check(toy, "--quick", "--fix", str(fixed))
    assert code == 2 and "exists already" in errors
    toy.set("DATASETS.CATALOG.toy_train.ann_file", "fixed/toy_train.json")
    code, output, _ = check(toy, "--quick")
    assert code == 0 and "data set toy_train: 11 images" in output
