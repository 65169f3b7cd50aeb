from __future__ import annotations

import pytest

from engine.evaluation.tables import metrics_table, thresholds_table
from engine.tables import WIDTH, display_width

FIGURES = {
    "AP": 0.5,
    "AP50": 1.0,
    "AP75": 0.25,
    "APs": -1.0,
    "APm": 0.0,
    "APl": 0.125,
    "AR100": 0.75,
}


def metrics(names: list[str]) -> dict:
    return {"bbox": FIGURES, "per_class": {name: FIGURES | {"num_gt": 3} for name in names}}


def test_figures_are_fractions_and_undefined_ones_dashes() -> None:
    text = metrics_table(metrics(["hole"]))
    assert text.splitlines()[2].split() == [
        "0.500",
        "1.000",
        "0.250",
        "-",
        "0.000",
        "0.125",
        "0.750",
    ]
    row = "hole 3 0.500 1.000 0.250 - 0.000 0.125 0.750"
    assert text.splitlines()[-1].split() == row.split()


def test_wide_names_are_aligned() -> None:
    text = metrics_table(metrics(["hole", "破洞", "スクラッチ défaut", "007"]))
    table = text.split("\n\n")[1].splitlines()
    assert {display_width(line) for line in table} == {display_width(table[0])}
    assert table[3].startswith("破洞 ") and table[5].startswith("007 ")


@pytest.mark.parametrize("num_classes", [21, 80, 365])
def test_many_classes_share_lines(num_classes: int) -> None:
    names = [f"类别 {k}" for k in range(num_classes)]
    table = metrics_table(metrics(names)).split("\n\n")[1].splitlines()
    assert len(table) < num_classes / 2
    assert all(display_width(line) <= WIDTH for line in table)
    words = " ".join(table).split()
    assert [w for w in words if w.isdigit()].count("0") == 1
    assert sum(w == "类别" for w in words) == num_classes
    full = [line for line in table[2:] if line.count("类别") == table[2].count("类别")]
    assert len({display_width(line.rstrip()) for line in full}) == 1


def test_very_long_names_and_no_classes() -> None:
    names = [f"{'long ' * 30}{k}" for k in range(30)]
    assert len(metrics_table(metrics(names)).split("\n\n")[1].splitlines()) == 32
    assert len(metrics_table(metrics([])).splitlines()) == 3


def test_thresholds_and_reasons() -> None:
    good = {"threshold": 0.5, "f_measure": 0.75, "precision": 1.0, "recall": 0.6, "num_gt": 5}
    bad = dict.fromkeys(["threshold", "f_measure", "precision", "recall"])
    bad |= {"num_gt": 0, "reason": "no ground truth"}
    thresholds = {"iou": 0.5, "beta": 2.0, "classes": {"破洞": good, "b": bad}}
    lines = thresholds_table(thresholds).splitlines()
    assert "IoU 0.5, beta 2" in lines[0]
    assert lines[-2].split() == ["破洞", "0.500", "0.750", "1.000", "0.600", "5"]
    assert lines[-1].split() == ["b", "-", "-", "-", "-", "0", "no", "ground", "truth"]
    assert "no ground" not in thresholds_table(thresholds | {"classes": {"a": good}})
