from __future__ import annotations

import json
import subprocess
import sys


def test_ours_equals_the_plain_algorithm() -> None:
    command = [sys.executable, "-W", "ignore", "benchmarks/vote.py", "--boxes", "1", "500", "--json", "/dev/stdout"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = json.loads(output[output.index("[") :])
    assert [row["equal"] for row in rows] == [True, True]
