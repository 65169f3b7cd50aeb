from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from engine.log import get_logger, setup_logging, warn_once

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    setup_logging(tmp_path)
    for k in range(3):
        get_logger(__name__).info("line %d", k)
    told = capsys.readouterr()
    assert told.out == "line 0\nline 1\nline 2\n"
    assert told.err == f"{tmp_path}/log.txt: cannot be written (No space left on device); log lines are lost\n"


def test_a_reader_that_goes_away_ends_no_work(tmp_path: Path) -> None:
    """`command | head -1`."""
    code = "from engine.log import setup_logging; log = setup_logging(); [log.info('x' * 9999) for _ in range(99)]"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == "the console: cannot be written (Broken pipe); log lines are lost\n"


def test_mistakes_in_a_message_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path)
    get_logger(__name__).info("%d", "no number")
    assert "TypeError" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_an_escape_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path)
    logging.getLogger("engine").handlers[0].setStream(io.StringIO())  # the console has its own way, see `run_tool`
    get_logger(__name__).info("photo \udcff.jpg")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith(": photo \\udcff.jpg\n")
    assert capsys.readouterr().err == ""


def test_a_warning_of_what_all_processes_see_is_said_once_by_the_main_one(capsys: pytest.CaptureFixture) -> None:
    for rank, expected in ((1, ""), (0, "parts.json: odd\n")):
        warn_once.cache_clear()
        setup_logging(rank=rank)
        for _ in range(2):
            warn_once("parts.json: odd")
        assert capsys.readouterr().out == expected
