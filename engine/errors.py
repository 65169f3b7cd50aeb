"""The error for bad input, and how a command reports it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

EXIT_BAD_INPUT = 2
EXIT_SAVED = 75  # EX_TEMPFAIL of sysexits.h: try again later
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141  # what a shell reports for a command ended by SIGPIPE


class InputError(Exception):
    """Bad input: a file, a line, an id or a key that the user can correct.

    The message is one line that names the cause and says what to do. Commands print it without a traceback.
    """


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, at most 60 characters.

    Example:
        >>> shown("two\\nlines"), len(shown([1] * 100))
        ("'two\\\\nlines'", 60)
    """
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


SIGNALS = [each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGUSR1")]
"""Ctrl-C; the notice before a job is killed; what Slurm's --signal sends (Windows does not have it)."""


class Interrupted(Exception):
    """A signal ended the work, which is saved; the log says where and how to continue."""


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit with its exit code.

    `InputError` prints `error: ...` on stderr and gives exit code 2, `Interrupted` 75, a signal that saved nothing
    130 (see `engine.signals`), and a pipe closed by its reader (`| head`) 141. Characters that the terminal cannot show
    (a Chinese class name under LC_ALL=C) are printed as escapes.
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
            raise  # another pipe broke, not stdout
        code = EXIT_NO_READER
    _reaches_reader("")
    sys.exit(code)


def _reaches_reader(text: str) -> bool:
    """Whether stdout still has a reader, tested by writing `text`; if not, all further output is discarded."""
    try:
        print(end=text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
