from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.files import write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"AP": 0.5})
    with pytest.raises(ValueError):
        write_json(path, {"AP": float("nan")})
    assert json.loads(path.read_text()) == {"AP": 0.5}


def test_writing_into_a_file_as_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "metrics.json", {})
