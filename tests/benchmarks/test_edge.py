from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "benchmarks/edge.py", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_both_detectors_are_measured(tmp_path: Path) -> None:
    done = run("--size", "64", "--repeats", "2", "--json", str(tmp_path / "out.json"))
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["MB"] <= 20 and result["size"] == 64, done.stderr
    light, reference = result["ms_per_image"]["edge"], result["ms_per_image"]["_base_atss_R_18_cpu"]
    assert result["ratio"] == pytest.approx(light / reference, abs=0.01)
    assert done.returncode == (result["ratio"] > 0.5)


@pytest.mark.nightly
def test_the_edge_recipe_keeps_its_promise() -> None:
    done = run("--repeats", "10")
    assert done.returncode == 0, done.stdout


def test_a_detector_that_is_too_large_fails() -> None:
    done = run("--size", "64", "--repeats", "1", "--config-file", "configs/quickstart/_base_atss_R_18_cpu.yaml")
    assert done.returncode == 1
