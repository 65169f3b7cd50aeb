from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.analysis.run_logs import (
    RunLog,
    figures_table,
    find_metrics,
    is_validation,
    panels,
    read_runs,
    short_names,
    times_table,
)
from engine.errors import InputError


def record(iteration: int, loss: float | None = 1.0, seconds: float = 0.5, **more: Any) -> dict[str, Any]:
    return {"iteration": iteration, "lr": 0.1, "loss": loss, "time": seconds, "data_time": 0.1 * seconds, **more}


@pytest.fixture
def runs() -> list[RunLog]:
    validated = {"val/AP": 0.25, "val/APs": -1, "val/loss": 3.0}, {"val/AP": 0.5, "val/APs": -1, "val/loss": 2.0}
    last = {"val/AP": 0.4, "val/APs": 0.1, "val/loss": 2.5}
    first = [record(20), {"iteration": 20, **validated[0]}, record(40), {"iteration": 40, **validated[1]}]
    first += [record(45, None, 3.0, memory_mb=700), {"iteration": 45, **last}]
    return [RunLog("a", first), RunLog("b", [record(10, 2.0)])]


def rows(table: str) -> list[list[str]]:
    lines = table.splitlines()
    return [line.split() for line in [lines[0], *lines[2:]]]


def test_curves(runs: list[RunLog]) -> None:
    loss = runs[0].curve("loss")
    assert loss[:, 0].tolist() == [20, 40, 45] and loss[:2, 1].tolist() == [1, 1] and math.isnan(loss[2, 1])
    assert np.isnan(runs[0].curve("val/APs")[:, 1]).tolist() == [True, True, False]
    assert runs[1].curve("val/AP").shape == (0, 2)
    assert is_validation("val/AP") and not is_validation("loss")


def test_infinity_is_a_gap() -> None:
    assert np.isnan(RunLog("a", [record(1, math.inf)]).curve("loss")[0, 1])


def test_metrics_by_name_and_by_end(runs: list[RunLog]) -> None:
    assert find_metrics(runs) == ["loss", "val/AP", "lr", "time"]
    assert find_metrics(runs, ["loss", "AP", "val/AP"]) == ["loss", "val/AP"]
    assert find_metrics(runs[1:], ()) == ["loss", "lr", "time"]
    with pytest.raises(InputError, match="no run has APs; known are data_time, loss, lr, time$"):
        find_metrics(runs[1:], ["APs"])


def test_without_default_metrics() -> None:
    with pytest.raises(InputError, match="^no run has loss, AP, lr, time; choose from bar, foo with --metrics$"):
        find_metrics([RunLog("a", [{"iteration": 1, "foo": 2, "bar": 3}])])
    with pytest.raises(InputError, match="^no run has loss, AP, lr, time; there is nothing to draw$"):
        find_metrics([RunLog("a", [{"iteration": 1}])])


def test_panels_have_the_runs_under_titles_with_units(runs: list[RunLog]) -> None:
    found = panels(runs, ["loss", "time"])
    assert list(found) == ["loss", "time (seconds per iteration)"] and list(found["loss"]) == ["a", "b"]


def test_times(runs: list[RunLog]) -> None:
    """a: 40 iterations of 0.5 s, 5 of 3 s; a tenth of the time is waiting."""
    head, a, b = rows(times_table(runs))
    assert a == ["a", "45", "0.01", "0.5", f"{35 / 45:.4g}", "2.75", "10.0%", "700"]
    assert b == ["b", "10", "0.00", "0.5", "0.5", "0.5", "10.0%", "-"]
    assert rows(times_table([RunLog("c", [{"iteration": 7, "val/AP": 0.1}])]))[1] == ["c", "7", *"------"]


def test_a_file_that_begins_in_the_middle_counts_its_own_iterations() -> None:
    late = RunLog("a", [record(1000, seconds=9.0), record(1020, seconds=1.0)])
    assert rows(times_table([late]))[1][4] == "5"


def test_final_and_best_figures(runs: list[RunLog]) -> None:
    head, a, b = rows(figures_table(runs, ["loss", "val/AP", "val/loss"]))
    assert head == ["run", "loss", "val/AP", "best", "at", "val/loss", "best", "at"]
    assert a == ["a", "1", "0.4", "0.5", "40", "2.5", "2", "40"] and b == ["b", "2", *"------"]


def test_reading(tmp_path: Path) -> None:
    for name in ("x/run", "y/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(record(20)) + '\n{"iteration": 40, "lo')
    found = read_runs([tmp_path / "x" / "run", tmp_path / "y" / "run" / "metrics.jsonl"])
    assert [run.name for run in found] == ["x/run", "y/run"] and found[0].records == [record(20)]


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.* does not exist; give the folder of a run"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="metrics.jsonl does not exist; give"):
        read_runs([tmp_path])
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="has no records"):
        read_runs([tmp_path])


def test_the_same_run_twice_is_two_lines_of_one_name() -> None:
    assert short_names([Path("/o/a/metrics.jsonl")] * 2) == ["a", "a"]
