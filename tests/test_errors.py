from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InputError, listed, shown

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


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_before_there_is_anything_to_save(name: str) -> None:
    """The second one ends the process even if the first is not heard, as in a loop in C."""
    send = f"import os, signal, time; os.kill(os.getpid(), signal.{name}); time.sleep(9)"
    assert outcome(send) == (130, "interrupted\n")
    twice = f"import os, signal\n    try: os.kill(os.getpid(), signal.{name})\n    except BaseException: pass"
    assert outcome(f"{twice}\n    os.kill(os.getpid(), signal.{name})") == (-getattr(signal, name), "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hole ", "'hole '"),
        ("7", "'7'"),
        (7, "7"),
        ("d\u00e9faut", "'d\u00e9faut'"),
        ("de\u0301faut", "'de\\u0301faut'"),
        ("\u212bngstr\u00f6m", "'\\u212bngstr\u00f6m'"),  # the sign, not the letter
        ("\u1112\u1161\u11ab", "'\u1112\\u1161\u11ab'"),  # one syllable of Korean in three pieces
        ("\u0e01\u0e33", "'\u0e01\u0e33'"),  # Thai, where no other form is meant
        ("a\u200bb\u00a0\ufeff", "'a\\u200bb\\xa0\\ufeff'"),
        ("\ud83d\0\n", "'\\ud83d\\x00\\n'"),
        (["de\u0301"], "['de\\u0301']"),
    ],
)
def test_what_cannot_be_told_apart_is_an_escape(value: object, text: str) -> None:
    assert shown(value) == text


def test_values_of_any_size_are_short() -> None:
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, 10**6000, "x" * 10**6, ["e\u0301" * 99], {"a": deep}):
        assert 0 < len(shown(value)) <= 60 and "\n" not in shown(value)
    assert listed(["a ", 7]) == "'a ', 7" and listed([]) == ""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\tb\r\x1b[31m\x7f\x85", "a\\tb\\r\\x1b[31m\\x7f\\x85"),
        ("\u2028 \u202e \ud83d", "\\u2028 \\u202e \\ud83d"),
        ("破洞 é \U0001f600 a\\b '\u200d'", "破洞 é \U0001f600 a\\b '\u200d'"),
        ("one\ntwo", "one\ntwo"),
        (f"a{'x' * 9000}b\nc", f"a{'x' * 599} ... {'x' * 599}b\nc"),
    ],
)
def test_a_message_shows_what_a_terminal_would_obey(message: str, shown: str) -> None:
    assert str(InputError(message)) == shown


@pytest.mark.parametrize("unbuffered", [True, False])
def test_lines_of_several_processes_do_not_mix(unbuffered: bool) -> None:
    """Each line reaches the pipe in a write of its own, with its end."""
    code = (
        "import sys; from engine.errors import InputError, run_tool\n"
        "from engine.log import get_logger, setup_logging\n"
        "setup_logging()\n"
        "def main():\n"
        "    get_logger().warning('a warning')\n"
        "    raise InputError('first\\nsecond')\n"
        "run_tool(main)"
    )
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # keeps the writes apart
    flags = ["-u"] if unbuffered else []
    with reader, writer:
        done = subprocess.run([sys.executable, *flags, "-c", code], cwd=ROOT, stdout=writer, stderr=writer)
        reader.setblocking(False)
        writes = []
        while True:
            try:
                writes.append(reader.recv(65536).decode())
            except BlockingIOError:
                break
    assert done.returncode == 2
    assert all(each.endswith("\n") for each in writes if each)
    assert [each for each in writes if each.startswith("error: ")] == ["error: first\n", "error: second\n"]
    assert any("a warning" in each for each in writes)
