from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_every_layer_has_its_times(tmp_path: Path) -> None:
    options = ["--size", "32", "64", "--batch", "1", "--repeats", "1", "--json", str(tmp_path / "out.json")]
    subprocess.run([sys.executable, "-W", "ignore", "benchmarks/depthwise.py", *options], check=True)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert rows[-1]["layer"] == "all" and rows[-1]["count"] == 16
    assert all(row["ours ms"] > 0 and row["ratio"] > 0 for row in rows)
