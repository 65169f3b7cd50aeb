from __future__ import annotations

import json
import subprocess
import sys


def test_2000_boxes_in_a_2048_image_need_less_than_300_mb() -> None:
    command = [sys.executable, "-W", "ignore", "benchmarks/assign.py", "--worker", "ours", "2000"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert figures["positives"] > 2000
    assert figures["megabytes"] < 300


def test_ours_equals_the_dense_formula() -> None:
    command = [sys.executable, "-W", "ignore", "benchmarks/assign.py", "--boxes", "40", "--json", "/dev/stdout"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = json.loads(output[output.index("[") :])
    assert [row["equal"] for row in rows] == [True]
