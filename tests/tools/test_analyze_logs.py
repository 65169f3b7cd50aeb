from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(ROOT / "tools/analyze_logs.py"))["main"](list(map(str, arguments)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, scale in (("first", 1.0), ("second", 2.0)):
        (tmp_path / name).mkdir()
        lines = [
            {"iteration": k, "loss": scale / k, "lr": 0.1, "time": 0.5, "data_time": 0.1} for k in range(20, 500, 20)
        ]
        text = "".join(json.dumps(line) + "\n" for line in [*lines, {"iteration": 500, "val/AP": 0.3 * scale}])
        (tmp_path / name / "metrics.jsonl").write_text(text)
    return tmp_path


def test_tables_and_curves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(folder / "first", folder / "second" / "metrics.jsonl", "--smooth", "3")
    told = capsys.readouterr().out
    assert "first" in told and "second" in told and "20.0%" in told and "0.6" in told
    assert cv2.imread(str(folder / "first" / "curves.png")).shape == (704, 1280, 3)


def test_chosen_metrics_and_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "pictures" / "loss.jpg"
    main(folder / "second", "--metrics", "loss", "--output", output, "--log")
    assert f"curves: {output}" in capsys.readouterr().out and "AP" not in capsys.readouterr().out
    assert cv2.imread(str(output)).shape == (374, 1280, 3)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--metrics", "lss"], "no run has lss; known are data_time, loss, lr, time, val/AP"),
        (["--smooth", "0"], "--smooth is 0"),
        (["--output", "curves.pdf"], "cannot write an image of this kind"),
    ],
)
def test_mistakes(folder: Path, options: list[str], answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        main(folder / "first", *options)


def test_a_file_of_other_figures(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1, "foo": 2, "loss": "abc", "lr": [1]}\n{"iteration": true}')
    with pytest.raises(InputError, match="no run has loss, AP, lr, time; choose from foo with --metrics"):
        main(tmp_path)
    main(tmp_path, "--metrics", "foo")
    assert (tmp_path / "curves.png").exists()
