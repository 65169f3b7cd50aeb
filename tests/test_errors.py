from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def outcome(body: str, *flags: str, is_read: bool = True) -> tuple[int, str]:
    """Exit code and stderr of a command whose `main` is `body`, with or without a reader of its stdout."""
    code = f"from engine.errors import InputError, run_tool\ndef main():\n    {body}\nrun_tool(main)"
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    if not is_read:
        process.stdout.close()
    _, stderr = process.communicate()
    return process.returncode, stderr


@pytest.mark.parametrize("flags", [(), ("-u",)])
def test_a_reader_that_goes_away_ends_the_work_quietly(flags: tuple[str, ...]) -> None:
    """`command | head -1`."""
    assert outcome("print('x' * 99_999)", *flags, is_read=False) == (141, "")


def test_nobody_reads_what_is_left_at_the_end() -> None:
    assert outcome("print('x')", is_read=False) == (0, "")
    assert outcome("print('x'); raise SystemExit(3)", is_read=False) == (3, "")
    assert outcome("print('x'); raise InputError('no x')", is_read=False) == (2, "error: no x\n")


def test_another_broken_pipe_is_no_end() -> None:
    code, told = outcome("raise BrokenPipeError('of a worker')")
    assert code == 1 and told.startswith("Traceback") and "of a worker" in told


def test_exit_codes() -> None:
    assert outcome("pass") == (0, "") and outcome("return 4") == (4, "")
    assert outcome("raise InputError('a\\nb')") == (2, "error: a\nerror: b\n")
    assert outcome("raise KeyboardInterrupt") == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\tb\r\x1b[31m\x7f\x85", "a\\tb\\r\\x1b[31m\\x7f\\x85"),
        ("\u2028 \u202e \ud83d", "\\u2028 \\u202e \\ud83d"),
        ("破洞 é \U0001f600 a\\b '\u200d'", "破洞 é \U0001f600 a\\b '\u200d'"),
        ("one\ntwo", "one\ntwo"),
    ],
)
def test_a_message_shows_what_a_terminal_would_obey(message: str, shown: str) -> None:
    assert str(InputError(message)) == shown
