"""The one kind of error a user can cause, and the one way a command reports it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

EXIT_BAD_INPUT = 2
EXIT_SAVED = 75  # EX_TEMPFAIL of sysexits.h: try again later
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141  # as a shell says of a command that SIGPIPE ended


class InputError(Exception):
    """Bad input: a file, a line, an id or a key that the user can correct.

    The message is one line that names the culprit and says what to do. Commands print it without a traceback.
    """


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, at most 60 characters.

    Example:
        >>> shown("two\\nlines"), len(shown([1] * 100))
        ("'two\\\\nlines'", 60)
    """
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
"""Ctrl-C; the notice before a job is killed; the same where a scheduler is told to send it (Slurm's --signal)."""


def signal_numbers() -> list[int]:
    """Those of `SIGNALS` that this system has (Windows has no SIGUSR1)."""
    return [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]


class Interrupted(Exception):
    """A signal ended the work, and what was done is saved; the log says where and how to go on."""


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and leave the process with its exit code.

    `InputError` becomes `error: ...` on stderr and exit code 2, `Interrupted` exit code 75, a Ctrl-C that left nothing
    to go on from exit code 130, a pipe whose reader has seen enough (`| head`) exit code 141. A terminal that cannot
    show a character (a class name in Chinese under LC_ALL=C) shows its escape instead.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
    except SystemExit as end:  # argparse
        code = end.code
    except InputError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except Interrupted:
        code = EXIT_SAVED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        if _reaches_reader("\n"):
            raise  # it was another pipe
        code = EXIT_NO_READER
    _reaches_reader("")
    sys.exit(code)


def _reaches_reader(text: str) -> bool:
    """Whether somebody reads stdout, tried by writing `text`; if nobody does, what is left to write goes nowhere."""
    try:
        print(end=text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
