"""The output folder of a run: one run at a time, going on after a kill, and the parts of several processes made one.

A process appends its records to `predictions.jsonl`, or, as one of several, to `predictions-00001-of-00004.jsonl`. The
file `run.json` (`run-00001-of-00004.json`) beside it says of which model and inputs they are, and whether all of them
are there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import folder_lock
from engine.errors import InputError
from engine.files import read_json, replacing, write_json
from engine.inference.items import LIVE, Item
from engine.inference.records import Record, read_records, to_line, whole_bytes, with_offsets

RECORDS, FACTS = "predictions", "run"


@dataclass(frozen=True)
class Shard:
    """One of `count` processes that share the items of a run.

    Example:
        >>> Shard.parse("2/4"), Shard(1, 2).part("abcdefg", block=2), Shard(1, 4).tail, Shard().tail
        (Shard(index=1, count=4), ['c', 'd', 'g'], '-00001-of-00004', '')
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "I/N", where I counts from 1.

        Raises:
            InputError: it is not of this form.
        """
        match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {text}: write I/N, such as 1/4, with I from 1 to N")
        return cls(int(match[1]) - 1, int(match[2]))

    @property
    def tail(self) -> str:
        """What is added to the names of its files."""
        return f"-{self.index:05d}-of-{self.count:05d}" if self.count > 1 else ""

    def part(self, items: Sequence[Any], block: int) -> list[Any]:
        """Every `count`-th block of so many items: with the batch size, the batches are those of a single process."""
        return [item for index, item in enumerate(items) if index // block % self.count == self.index]


class RunFolder:
    """The part of an output folder that belongs to this process, from `claim` to `release`.

    Args:
        folder: created if it does not exist.
        shard: which of several processes this is.
        facts: what the records depend on, by name: the same facts give the same records.
        block: see `Shard.part`.
        resume: go on with what is there.
        overwrite: replace what is there.

    Attributes:
        records: path of the records.
        done: places of the items that need not be looked at again, in the order of their records.
        num_frames: place of a camera or stream -> frames that are recorded already.
        notes: lines for the log on what was found in the folder.
    """

    def __init__(
        self, folder: Path, shard: Shard, facts: dict[str, Any], block: int, resume: bool, overwrite: bool
    ) -> None:
        self.folder, self.shard, self.block = folder, shard, block
        self._facts = {**facts, "processes": shard.count, "block": block} if shard.count > 1 else facts
        self._resume, self._overwrite = resume, overwrite
        self.records = folder / f"{RECORDS}{shard.tail}.jsonl"
        self._facts_path = folder / f"{FACTS}{shard.tail}.json"
        self._claimed = folder / f".shard{shard.tail}" if shard.tail else folder
        self.done: dict[str, None] = {}
        self.num_frames: dict[str, int] = {}
        self.notes: list[str] = []
        self._created: list[Path] = []  # folders, the innermost first

    def claim(self, items: Sequence[Item]) -> None:
        """Keep others out of the folder and find out what is done; no earlier records are removed yet.

        Raises:
            InputError: another run writes into it, there are records and neither `resume` nor `overwrite` was said, or
                they are of another model.
        """
        try:
            self._created = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
            self._claimed.mkdir(parents=True, exist_ok=True)
            if taken_over := folder_lock.claim(self._claimed):
                self.notes.append(taken_over)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written to ({error.strerror}); name another folder") from error
        if not self._has_records() or self._overwrite:
            return
        if not self._resume:
            raise InputError(
                f"{self.records} holds the records of an earlier run: add --resume to go on with it, --overwrite to "
                "replace it, or name another --output-dir"
            )
        self._compare_facts()
        self._find_done(items)

    def begin(self) -> None:
        """Remove what is to be replaced, and say whose records will follow: now that the model is known to load."""
        if not self._has_records() or self._overwrite:
            self.records.unlink(missing_ok=True)
            self._facts_path.unlink(missing_ok=True)
        write_json(self._facts_path, {**self._facts, "is_complete": False})

    def _has_records(self) -> bool:
        return self.records.exists() and self.records.stat().st_size > 0

    def _compare_facts(self) -> None:
        before = read_json(self._facts_path) if self._facts_path.exists() else {}
        before = before if isinstance(before, dict) else {}
        changed = [name for name, value in self._facts.items() if name in before and before[name] != value]
        if "inputs" in changed and self.shard.count == 1:
            changed.remove("inputs")
            self.notes.append("the inputs are not those of the earlier run, whose records stay")
        if changed:
            name = changed[0]
            raise InputError(
                f"{self.records} is of another run ({name}: {before[name]}, now {self._facts[name]}): go on with the "
                "same, add --overwrite, or name another --output-dir"
            )

    def _find_done(self, items: Sequence[Item]) -> None:
        """Drop a torn line, and the frames of a video that was not finished, which begins anew."""
        kinds = {item.shown: item.kind for item in items}
        size = whole_bytes(self.records)
        if size < self.records.stat().st_size:
            self.notes.append(f"{self.records}: the last line was not written to its end and is dropped")
            os.truncate(self.records, size)
        begin, last = 0, None  # of the last item
        for offset, record in with_offsets(self.records):
            place = record["image"]
            if last is None or last["image"] != place:
                begin = offset
            last = record
            self.done[place] = None
            if kinds.get(place) in LIVE:
                self.num_frames[place] = record["frame"] + 1
        if last and kinds.get(last["image"]) == "video" and not ("error" in last or last.get("last")):
            self.notes.append(f"{last['image']}: was not finished and begins anew")
            os.truncate(self.records, begin)
            del self.done[last["image"]]

    def complete(self) -> None:
        """Note that all records of this process are there."""
        write_json(self._facts_path, {**self._facts, "is_complete": True})

    def merge(self) -> Path | None:
        """`predictions.jsonl`, once all processes have completed theirs; None before.

        Raises:
            InputError: they do not fit together.
        """
        if self.shard.count == 1:
            return self.records
        shards = [Shard(index, self.shard.count) for index in range(self.shard.count)]
        for shard in shards:
            path = self.folder / f"{FACTS}{shard.tail}.json"
            facts = read_json(path) if path.exists() else {}
            if not facts.pop("is_complete", False):
                return None
            if facts != self._facts:
                raise InputError(f"{path}: is of another run than {self._facts_path}; run this part again")
        whole = self.folder / f"{RECORDS}.jsonl"
        with replacing(whole, f".{uuid.uuid4().hex}.tmp") as file:  # two processes may end at once
            for record in merged([self.folder / f"{RECORDS}{shard.tail}.jsonl" for shard in shards], self.block):
                file.write(to_line(record))
        return whole

    def release(self) -> None:
        """Let others write into the folder; a new one in which nothing was written is removed."""
        folder_lock.release(self._claimed)
        own = [self._claimed] if self._claimed != self.folder else []
        with contextlib.suppress(OSError):  # it was never there, another process holds it, or something is in it
            for folder in [*own, *self._created]:
                folder.rmdir()


def merged(paths: Sequence[Path], block: int) -> Iterator[Record]:
    """The records of all parts, see `Shard.part`, in the order of the items."""
    parts = [itertools.groupby(read_records(path), lambda record: record["image"]) for path in paths]
    while True:
        is_over = True
        for part in parts:
            for _, records in itertools.islice(part, block):
                is_over = False
                yield from records
        if is_over:
            return
