"""The checkpoints of a run in its output folder, and which one is the last."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.checkpoint import io
from engine.errors import InputError, shown
from engine.files import write_text
from engine.log import get_logger

_POINTER = "last_checkpoint"
_NUMBERED = re.compile(r"model_(\d+)\.pth")
_OF_A_RUN = re.compile(r"model_(\d+|final|best)\.pth")


class Checkpointer:
    """Saves and finds `model_0002500.pth`, ..., `model_final.pth`; the file `last_checkpoint` names the last one.

    With several processes, call `save` only on the main one.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)
        self.is_saving = False  # seen by other threads
        self._logger = get_logger("checkpoint")

    def save(self, name: str, state: dict[str, Any], is_last: bool = True) -> Path:
        """Write `name` (with or without .pth), then make it the last unless told otherwise.

        Raises:
            InputError: disk full or not writable; the earlier checkpoints and `last_checkpoint` are untouched.
        """
        path = self.output_dir / f"{name.removesuffix('.pth')}.pth"
        self.is_saving = True
        try:
            io.save(path, state)
            if is_last:
                write_text(self.output_dir / _POINTER, path.name)
        finally:
            self.is_saving = False
        return path

    def last(self) -> Path | None:
        """The file that `last_checkpoint` names, if it exists.

        The reference writes a path into it; a file of that name in this folder is preferred, because the folder may
        have been moved.
        """
        named = self._named()
        if not named:
            return None
        beside = self.output_dir / Path(named).name
        elsewhere = (Path(named), self.output_dir / named) if len(Path(named).parts) > 1 else ()
        return next((path for path in (beside, *elsewhere) if os.path.isfile(path)), None)  # damaged names too

    def set_aside(self, others: Sequence[str] = ()) -> Path | None:
        """Move the checkpoints of an earlier run to `previous-1` (or the next free number) before a new run starts.

        This way neither run resumes, prunes or overwrites the checkpoints of the other. `others`, the names of more
        files and folders of a run, are moved too, so that a training can resume with the new folder as `OUTPUT_DIR`.

        Returns:
            The new folder; None if there is nothing to move.

        Raises:
            InputError: something cannot be moved; the next call moves the rest into the same folder.
        """
        checkpoints = [path for path in self.output_dir.glob("model_*.pth") if _OF_A_RUN.fullmatch(path.name)]
        named = (self.output_dir / name for name in (*others, _POINTER))
        parts = [*checkpoints, *(path for path in named if path.exists())]
        unfinished = self.output_dir / ".previous"  # left by a process that was killed here
        if not parts and not unfinished.exists():
            return None
        number = next(k for k in itertools.count(1) if not (self.output_dir / f"previous-{k}").exists())
        folder = self.output_dir / f"previous-{number}"
        try:
            # The final name appears only when everything is inside, so each `previous-N` is complete.
            unfinished.mkdir(exist_ok=True)
            for path in parts:
                path.replace(unfinished / path.name)
            unfinished.replace(folder)
        except OSError as error:
            raise InputError(f"{self.output_dir}: the earlier run in it cannot be moved: {error.strerror}") from error
        advice = "%s had an earlier run, which is now in %s; to continue it, use --resume with OUTPUT_DIR %s"
        self._logger.warning(advice, self.output_dir, folder, folder)
        return folder

    def load_last(self) -> tuple[Path, dict[str, Any]] | None:
        """The last checkpoint that can be read, or None if none was ever written.

        If it is damaged or missing, a warning is logged and the one before it is used.

        Raises:
            InputError: there are checkpoints, but none can be read.
        """
        named = self._named()
        if named is None and not self._before(None):
            return None
        problems = []
        last = self.last()
        if last is None:
            fault = "does not exist" if named is None else f"names {shown(named)}, which does not exist"
            problems.append(f"{self.output_dir / _POINTER}: {fault}")
            self._logger.warning(problems[-1])
        for path in [*([last] if last else []), *self._before(last)]:
            try:
                state = io.load(path)
            except InputError as error:
                problems.append(str(error))
                self._logger.warning("%s", error)
                continue
            if problems:
                self._logger.warning("falling back to an earlier checkpoint: %s", path)
            return path, state
        raise InputError(f"{'; '.join(problems)}; no other checkpoint can be read; start again without --resume")

    def prune(self, keep: int) -> list[Path]:
        """Delete all numbered checkpoints except the newest `keep` (at least 1); never deletes the last one.

        Those of another run (see `numbered`) are not counted and not deleted.
        """
        last = self.last()
        old = [path for path in self.numbered(last)[max(keep, 1) :] if path != last]
        for path in old:
            path.unlink(missing_ok=True)
        return old

    def _named(self) -> str | None:
        """The content of `last_checkpoint`: None if there is no such file, "" if it is empty or not text."""
        try:
            return (self.output_dir / _POINTER).read_text(encoding="utf-8").strip().strip("\0")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            return ""

    def numbered(self, up_to: Path | None = None) -> list[Path]:
        """Numbered checkpoints, newest first, without those of another run, whose numbers are above that of `up_to`."""
        found = [path for path in self.output_dir.glob("model_*.pth") if _number(path) is not None]
        limit = _number(up_to) if up_to else None
        return sorted((each for each in found if limit is None or _number(each) <= limit), key=_number, reverse=True)

    def _before(self, last: Path | None) -> list[Path]:
        """What to try if `last` is damaged: the numbered ones before it, newest first, then the final one."""
        before = [path for path in self.numbered(last) if path != last]
        final = self.output_dir / "model_final.pth"
        return before + ([final] if final.is_file() and final != last else [])


def _number(path: Path) -> int | None:
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None
