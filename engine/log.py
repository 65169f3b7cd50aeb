"""Console and file logging. The main process logs everything, the others only warnings."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path

from engine.errors import print_error

ROOT = "engine"
CONFIG_FILE = "config.yaml"
"""The resolved configuration of a training run, next to `log.txt`."""
ON_BAR = "is_on_bar"
"""Attribute of a log record (`extra={ON_BAR: True}`): a progress bar shows the same, so a terminal needs no line."""

_ALIKE = "is_alike"


class _ReportsFailureOnce(logging.Handler):
    """Reports once on stderr that its stream cannot be written (full disk, closed pipe), and lets the work go on."""

    is_failing = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.is_failing:
            self.is_failing = True
            name = getattr(self, "baseFilename", "the console")
            print_error(f"{name}: cannot be written ({error.strerror}); log lines are lost")


class _BarFriendlyHandler(_ReportsFailureOnce, logging.StreamHandler):
    """Writes above a tqdm bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, ON_BAR, False) and self.stream.isatty():
            return
        from tqdm import tqdm  # not above: the runtime logs nothing, and does without it

        try:
            tqdm.write(f"{self.format(record)}\n", file=self.stream, end="")  # one write, see `print_error`
        except Exception:  # as all handlers of `logging` do
            self.handleError(record)


class _LogFile(_ReportsFailureOnce, logging.FileHandler):
    """The log on disk."""


def get_logger(name: str = ROOT) -> logging.Logger:
    """A logger below `engine`, silent until `setup_logging` is called."""
    return logging.getLogger(name if name.startswith(ROOT) else f"{ROOT}.{name}")


@cache
def warn_once(text: str) -> None:
    """Warn of something that every process sees alike, such as a data file: once, however often it is read."""
    get_logger().warning("%s", text, extra={_ALIKE: True})


def setup_logging(output_dir: Path | None = None, rank: int = 0) -> logging.Logger:
    """Log to stdout and, on rank 0, append to `output_dir/log.txt`. Calling it again replaces the handlers."""
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    prefix = "" if rank == 0 else f"[rank {rank}] "
    console = _BarFriendlyHandler(sys.stdout)
    console.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    console.addFilter(lambda record: rank == 0 or not getattr(record, _ALIKE, False))
    logger.addHandler(console)
    if output_dir is not None:
        warn_once.cache_clear()  # a new run with a log of its own
    if output_dir is not None and rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        file = _LogFile(output_dir / "log.txt", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)
    return logger
