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
