"""The error for bad input, and how a command reports it."""

from __future__ import annotations

import os
import re
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any, NoReturn

EXIT_BAD_INPUT = 2
EXIT_SAVED = 75  # EX_TEMPFAIL of sysexits.h: try again later
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141  # what a shell reports for a command ended by SIGPIPE


# Control characters, separators of lines, reversed writing, lone surrogates.
_UNSHOWABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_LINE = 1200


class InputError(Exception):
    """Bad input: a file, a line, an id or a key that the user can correct.

    The message is one line that names the cause and says what to do. Commands print it without a traceback. What a
    terminal would obey or cannot show (a carriage return in a file name, half an emoji) stands in it as an escape, and
    of a very long line the middle is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(_shortened, map(printable, message.split("\n")))))


def printable(text: str) -> str:
    """`text` on one line: an escape stands for what a terminal would obey, or cannot show.

    Example:
        >>> printable("two\\nlines")
        'two\\\\nlines'
    """
    return _UNSHOWABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, at most 60 characters, text in quotes.

    What could not be told from the page is an escape: line ends, zero-width characters, halves of characters, and in
    decomposed text the characters that composition would change.

    Example:
        >>> shown("two\\nlines"), len(shown([1] * 100))
        ("'two\\\\nlines'", 60)
        >>> shown("d\u00e9faut"), shown("de\u0301faut")
        ("'d\u00e9faut'", "'de\\\\u0301faut'")
    """
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # lists a thousand deep; an integer of more digits than Python prints
        text = f"<{type(value).__name__} too large to show>"
    text = _with_visible_accents(text[:61])
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(values: Iterable[Any]) -> str:
    """Names or ids as a message lists them.

    Example:
        >>> listed(["hole ", 7])
        "'hole ', 7"
    """
    return ", ".join(map(shown, values))


def _with_visible_accents(text: str) -> str:
    """`text` with escapes in place of the characters that NFC would change or join to the one before them."""
    if unicodedata.is_normalized("NFC", text):
        return text
    normal = partial(unicodedata.normalize, "NFC")
    pairs = zip(("", *text), text, strict=False)
    return "".join(
        char if normal(before + char) == normal(before) + char else char.encode("unicode_escape").decode()
        for before, char in pairs
    )


SIGNALS = [each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGUSR1")]
"""Ctrl-C; the notice before a job is killed; what Slurm's --signal sends (Windows does not have it)."""


class Interrupted(Exception):
    """A signal ended the work, which is saved; the log says where and how to continue."""


def print_error(line: str) -> None:
    """Write `line` and its end to stderr in a single write.

    `print` takes two, between which another process of the same launch may write its line: torchrun starts processes
    with `python -u`, which sends each write on at once.
    """
    print(f"{line}\n", end="", file=sys.stderr, flush=True)


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit with its exit code.

    `InputError` prints `error: ...` on stderr and gives exit code 2, `Interrupted` 75, a signal that saved nothing
    130 (see `engine.signals`), and a pipe closed by its reader (`| head`) 141. Characters that the terminal cannot show
    (a Chinese class name under LC_ALL=C) are printed as escapes.
    """
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
    except SystemExit as end:  # argparse
        code = end.code
    except InputError as error:
        for line in str(error).splitlines():
            print_error(f"error: {line}")
        code = EXIT_BAD_INPUT
    except Interrupted:
        code = EXIT_SAVED
    except KeyboardInterrupt:
        print_error("interrupted")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        if _reaches_reader("\n"):
            raise  # another pipe broke, not stdout
        code = EXIT_NO_READER
    _reaches_reader("")
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def _reaches_reader(text: str) -> bool:
    """Whether stdout still has a reader, tested by writing `text`; if not, all further output is discarded."""
    try:
        print(end=text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
