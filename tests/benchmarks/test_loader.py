from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_both_loaders_run(tmp_path: Path) -> None:
    options = ["--sets", "cells", "--jitter", "on", "--batches", "2", "--rounds", "1", "--target", "0"]
    command = [sys.executable, "-W", "ignore", "benchmarks/loader.py", *options, "--json", str(tmp_path / "out.json")]
    environment = {key: value for key, value in os.environ.items() if key != "DETECTION_DATA"}
    subprocess.run(command, check=True, env=environment)
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["set"] == "cells" and not row["real"] and row["ours"] > 0 and row["plain"] > 0
    assert row["ratio"] == row["lowest_ratio"]
    if sys.platform == "linux":
        assert row["ours_worker_rss_mb"] >= row["ours_worker_pss_mb"] > 0 and row["plain_main_pss_mb"] > 0
