"""Console and file logging. The main process speaks; the others only warn."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tqdm import tqdm

ROOT = "engine"


class _BarFriendlyHandler(logging.StreamHandler):
    """Writes above a live tqdm bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)


def get_logger(name: str = ROOT) -> logging.Logger:
    """A logger below `engine`, silent until `setup_logging` was called."""
    return logging.getLogger(name if name.startswith(ROOT) else f"{ROOT}.{name}")


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
    logger.addHandler(console)
    if output_dir is not None and rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(output_dir / "log.txt", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)
    return logger
