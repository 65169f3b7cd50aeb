"""Files that are there whole or not at all: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import InputError


class _RememberingFile:
    """A binary file that remembers its OSError, which a C++ caller turns into something obscure."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.name = file.name
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise


@contextlib.contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[_RememberingFile]:
    """A file that takes the place of `path` if the block ends well, and else leaves no trace.

    With the default suffix the temporary file has a fixed name, so that one left by a killed process is overwritten by
    the next. Where several processes may write the same path at once, each needs a `suffix` of its own.

    Raises:
        InputError: the disk is full or not writable; what stood at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}{suffix}")
    remembering: _RememberingFile | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            remembering = _RememberingFile(file)
            yield remembering
            remembering.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else remembering.error if remembering else None
        if cause is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise InputError(_why_not_written(path, cause)) from error


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 file atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON atomically: an object indented for people, anything else (long results) on one line.

    Raises:
        InputError: the folder cannot be written to.
        ValueError: `content` holds a NaN or an infinity, which JSON does not have.
    """
    indent = 2 if isinstance(content, dict) else None
    write_text(Path(path), json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent) + "\n")


def _why_not_written(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with contextlib.suppress(OSError):
            reason += f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free)"
        reason += "; make room"
    kept = "; the previous file is kept" if path.exists() else ""
    return f"{path}: cannot be written: {reason}{kept}"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # some network file systems know no such thing
            raise
    finally:
        os.close(descriptor)
