from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def compare(capsys: pytest.CaptureFixture[str], *runs: Path) -> list[list[str]]:
    runpy.run_path(str(ROOT / "tools/compare_results.py"))["main"](list(map(str, runs)))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def result(run: Path, data_set: str, ap: float, per_class: dict[str, float]) -> None:
    folder = run / "inference" / data_set
    folder.mkdir(parents=True)
    metrics = {
        "bbox": {"AP": ap, "AP50": 0.8912, "AP75": -1.0},
        "per_class": {name: {"AP": 0.0, "AP50": value} for name, value in per_class.items()},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_two_runs_of_other_classes_and_test_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(tmp_path / "a", "val", 0.5, {"hole": 0.7, "knot": -1.0})
    result(tmp_path / "b", "val", 0.25, {"knot": 0.125})
    result(tmp_path / "b", "test", 1.0, {"hole": 1.0})
    header, _, *rows = compare(capsys, tmp_path / "a", tmp_path / "b")
    assert header == ["run", "test", "set", "AP", "AP50", "AP75", "hole", "AP50", "knot", "AP50"]
    assert rows == [
        ["a", "val", "0.500", "0.891", "-", "0.700", "-"],
        ["b", "test", "1.000", "0.891", "-", "1.000", "-"],
        ["b", "val", "0.250", "0.891", "-", "-", "0.125"],
    ]


def test_no_results_and_a_file_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"has no results \(inference/NAME/metrics.json\); test it with"):
        compare(capsys, tmp_path)
    with pytest.raises(InputError, match=r"nowhere: no such folder; give OUTPUT_DIR"):
        compare(capsys, tmp_path / "nowhere")
    folder = tmp_path / "inference" / "val"
    folder.mkdir(parents=True)
    for content in ("[]", "{}", '{"bbox": {}, "per_class": {"a": 1}}'):
        (folder / "metrics.json").write_text(content)
        with pytest.raises(InputError, match=r"metrics.json: does not hold the metrics of a test"):
            compare(capsys, tmp_path)
