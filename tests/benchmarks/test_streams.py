from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import streams


def test_all_ways_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.json"
    options = ["--size", "40", "60", "--images", "3", "--repeats", "1", "--json", str(file)]
    monkeypatch.setattr("sys.argv", ["streams.py", *options])
    with pytest.raises(SystemExit) as end:
        streams.main()
    result = json.loads(file.read_text())
    assert end.value.code is False and result["equal"]
    for name in ("loop", "predict_iter", "AsyncPredictor", "reading"):
        assert result[name]["ratio"] == pytest.approx(result["loop"]["ms"] / result[name]["ms"])
