from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import edge


def exit_code(monkeypatch: pytest.MonkeyPatch, *options: object) -> bool:
    """Whether `benchmarks/edge.py` misses a target."""
    monkeypatch.setattr("sys.argv", ["edge.py", *map(str, options)])
    with pytest.raises(SystemExit) as end:
        edge.main()
    return end.value.code


def test_both_detectors_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.json"
    misses = exit_code(monkeypatch, "--size", 64, "--repeats", 2, "--json", file)
    result = json.loads(file.read_text())
    assert result["MB"] <= 20 and result["size"] == 64
    light, reference = result["ms_per_image"]["edge"], result["ms_per_image"]["_base_atss_R_18_cpu"]
    assert result["ratio"] == pytest.approx(light / reference, abs=0.01)
    assert misses == (result["ratio"] > 0.5)


@pytest.mark.nightly
def test_the_edge_recipe_keeps_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not exit_code(monkeypatch, "--repeats", 10)


def test_a_detector_that_is_too_large_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(monkeypatch, "--size", 64, "--repeats", 1, "--config-file", edge.REFERENCE)
