from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_every_variant_takes_a_step(tmp_path: Path) -> None:
    options = ["--steps", "1", "--batch", "2", "--size", "128", "128", "--json", str(tmp_path / "out.json")]
    subprocess.run([sys.executable, "-W", "ignore", "benchmarks/steps.py", *options, "MODEL.DEVICE", "cpu"], check=True)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {"float32", "bfloat16", "bfloat16, channels last"} <= {row["variant"] for row in rows}
    assert rows[0]["ratio"] == 1 and all(row["ms"] > 0 for row in rows)
