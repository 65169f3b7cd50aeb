"""Paths as users write them, atomic writing, and reading JSON.

A file is complete or absent: temporary file, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.errors import InputError


def expanded(path: str | os.PathLike[str]) -> str:
    """A path with `~`, `~user`, `$NAME` and `${NAME}` replaced; URLs stay as they are.

    Doing it again changes nothing, since the name of a folder may hold a dollar sign: a variable that is not set stays
    as it is where that very path exists, except at the beginning.

    Raises:
        InputError: a variable is not set or empty, or there is no such user, or the user has no home folder.

    Example:
        >>> expanded("~/runs") == expanded("$HOME/runs") == f"{os.environ['HOME']}/runs"
        True
    """
    text = os.fspath(path)
    scheme, separator, rest = text.partition("://")
    if separator:
        return f"{scheme}://{expanded(rest)}" if scheme == "file" else text

    def value(match: re.Match[str]) -> str:
        name = match["name"] or match["braced"] or "in ${}"
        if found := os.environ.get(name):
            return found
        if match.start() and os.path.lexists(text[: match.end()] + re.split(r"[\\/]", text[match.end() :])[0]):
            return match[0]
        state = "not set" if found is None else "empty"
        raise InputError(f"{text}: the variable {name} is {state}; set it, or write the path itself")

    expansion = re.sub(r"\$(?:(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[^}]*)\})", value, text)
    try:
        encoded = os.fsencode(expansion)  # without a locale, arguments have bytes in a form that only this undoes
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise InputError(f"{text}: a path cannot hold a NUL character or half a character")
    if expansion.startswith("~"):
        if os.environ.get("HOME") == "" and expansion[1:2] in ("", "/"):
            raise InputError(f"{text}: the variable HOME is empty; set it, or write the path itself")
        expansion = os.path.expanduser(expansion)
        if expansion.startswith("~"):
            user = re.split(r"[\\/]", expansion[1:])[0]
            reason = f"there is no user {user}" if user else "this user has no home folder (HOME is not set)"
            raise InputError(f"{text}: {reason}; write the path itself")
    return expansion


def user_path(text: str) -> Path:
    """The path of a command-line argument, see `expanded`."""
    return Path(expanded(text))


class _RememberingFile(io.BufferedWriter):
    """A binary file that keeps the OSError of a write, since a C++ caller (torch.save) turns it into an unclear one."""

    error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


@contextlib.contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[_RememberingFile]:
    """A file that replaces `path` if the block succeeds, and leaves no trace if it fails.

    With the default suffix the temporary file has a fixed name, so the next process replaces one that a killed process
    left. If several processes may write the same path at once, each needs its own `suffix`.

    Raises:
        InputError: the disk is full or not writable; the old content of `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}{suffix}")
    file: _RememberingFile | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with _RememberingFile(io.FileIO(temporary, "x")) as file:  # never through a link that stands there
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else getattr(file, "error", None)
        if cause is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise InputError(why_not_written(path, cause)) from error


def refuse_existing(path: Path) -> None:
    """Raise an `InputError` if there is anything at `path`, where a command is about to write something new."""
    if os.path.lexists(path):
        raise InputError(f"{path}: exists already; name another place, or remove it")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that becomes `path`, whole, if the block succeeds, and leaves no trace if it fails.

    Raises:
        InputError: there is something under this name already, or the folder cannot be written.
    """
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
        _sync_folder(path.absolute().parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(why_not_written(path, error)) from error
        raise


@contextlib.contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """A folder that was not there before is removed with what it holds if the block fails."""
    was_there = os.path.lexists(folder)
    try:
        yield
    except BaseException:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_text(path: Path, text: str, suffix: str = ".tmp") -> None:
    """Write a small UTF-8 file atomically; for `suffix` see `replacing`."""
    with replacing(path, suffix) as file:
        file.write(text.encode(errors="backslashreplace"))  # half a character; in JSON that is its escape


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON atomically: an object is indented for readers, anything else (long results) is one line.

    Several processes may write the same file: a reader finds one of their versions, whole.

    Raises:
        InputError: the folder cannot be written to.
        ValueError: `content` holds a NaN or an infinity, which JSON does not have.
    """
    indent = 2 if isinstance(content, dict) else None
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    write_text(Path(path), text, suffix=f".{uuid.uuid4().hex}.tmp")


def read_bytes(path: str | Path, count: int = -1) -> bytes:
    """The first `count` bytes of a file, by default all.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content in hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()


def read_json(path: str | Path, floats: Callable[[str], Any] = float) -> Any:
    """The content of a JSON file in UTF-8.

    Args:
        floats: what becomes of the text of a number with a point or an exponent.

    Raises:
        InputError: the file cannot be read or is not JSON (names the line), or `parse_json` refuses it.
    """
    data = read_bytes(path)
    try:
        return parse_json(data.decode("utf-8-sig"), floats)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def parse_json(text: str, floats: Callable[[str], Any] = float) -> Any:
    """What a JSON text holds. Valid JSON that Python cannot hold is a `ValueError` too, with one line.

    Raises:
        ValueError: lists and objects are nested too deeply, or a number has more digits than Python converts.
        json.JSONDecodeError: a `ValueError` as well; `text` is not JSON.

    Example:
        >>> parse_json("[" * 100_000 + "]" * 100_000)
        Traceback (most recent call last):
            ...
        ValueError: lists or objects are nested too deeply to be read; remove them
    """
    try:
        return json.loads(text, parse_float=floats)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply to be read; remove them") from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        limit = sys.get_int_max_str_digits()
        found = re.search(rf"\d{{{limit + 1}}}", text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise ValueError(f"line {line}: a number of more than {limit} digits cannot be read; correct it") from None


def why_not_written(path: Path, error: OSError) -> str:
    """The line that says that `path` cannot be written, why, and what to do."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with contextlib.suppress(OSError):
            reason += f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free)"
        reason += "; free some space"
    kept = "; the previous file is kept" if os.path.isfile(path) else ""
    return f"{path}: cannot be written: {reason}{kept}"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not support it
            raise
    finally:
        os.close(descriptor)
