"""Frames in; records, pictures and figures out."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from engine.errors import InputError
from engine.inference.records import RecordFile, detections_record, error_record
from engine.inference.sinks import Seen, Sink
from engine.inference.sources import Frame
from engine.log import get_logger
from engine.tables import aligned_table
from engine.visualize.draw import draw_detections

_MOST_LATENCIES = 100_000
"""The last so many count, for runs without an end."""

logger = get_logger(__name__)


class Looks(Protocol):
    """What is used of a predictor."""

    class_names: Sequence[str]
    thresholds: Any

    def detect(self, pixels: np.ndarray) -> Any: ...


@dataclass
class Tally:
    """What a run has seen.

    Attributes:
        class_names, thresholds: by label.
        detections, images: (K,) how many of each class, and in how many images; `num_found` have any.
        num_seen, num_unreadable, num_odd: images or frames; odd ones could be read with a warning.
        first_error: of the unreadable ones.
        seconds: since the first frame was asked for.
    """

    class_names: Sequence[str]
    thresholds: Any
    num_seen: int = 0
    num_found: int = 0
    num_unreadable: int = 0
    num_odd: int = 0
    first_error: str = ""
    seconds: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_LATENCIES))

    def __post_init__(self) -> None:
        self.detections = np.zeros(len(self.class_names), np.int64)
        self.images = np.zeros(len(self.class_names), np.int64)

    def add(self, labels: Any, latency: float) -> None:
        """Count an image with detections of these labels, which took so many seconds."""
        counts = np.bincount(np.asarray(labels), minlength=len(self.class_names))  # (K,)
        self.detections += counts
        self.images += counts > 0
        self.num_seen += 1
        self.num_found += bool(counts.any())
        self.latencies.append(latency)

    def table(self) -> str:
        """Detections of each class, the images they are in, and the threshold they passed."""
        rows = [
            [name, str(self.detections[k]), str(self.images[k]), f"{float(self.thresholds[k]):.3f}"]
            for k, name in enumerate(self.class_names)
        ]
        rows.append(["all", str(self.detections.sum()), str(self.num_found), ""])
        return aligned_table(["class", "detections", "images", "threshold"], rows)

    def remarks(self) -> str:
        """`, 2 of them with a warning, 1 unreadable skipped`."""
        warned = f", {self.num_odd} of them with a warning" if self.num_odd else ""
        return warned + (f", {self.num_unreadable} unreadable skipped" if self.num_unreadable else "")

    def pace(self) -> str:
        """Frames per second over all, and how long detecting in one took (p50, p90, p99)."""
        if not self.latencies:
            return "nothing was detected in"
        p50, p90, p99 = 1000 * np.percentile(np.array(self.latencies), (50, 90, 99))
        rate = self.num_seen / max(self.seconds, 1e-9)
        return f"{rate:.1f} per second; detecting took {p50:.1f} ms (p50), {p90:.1f} ms (p90), {p99:.1f} ms (p99)"


def look_at(
    predictor: Looks,
    frames: Iterable[Frame],
    sinks: Sequence[Sink],
    records: RecordFile | None = None,
    total: int | None = None,
) -> Tally:
    """Detect in all `frames`; each goes to all `sinks`, and then its record to `records`.

    So what has a record is complete. What cannot be read is named in a warning and recorded, and the run goes on. The
    sinks are closed, whatever happens.

    Args:
        total: how many frames there are, for the progress bar, if that is known.

    Raises:
        InputError: an output cannot be written, or a camera fails.
    """
    tally = Tally(predictor.class_names, predictor.thresholds)
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        bar = tqdm(frames, desc="detect", total=total, disable=not sys.stderr.isatty())
        for frame, found, latency in detections_in(predictor, bar):
            place = frame.item.shown
            if found is None:
                logger.warning("skipped: %s", frame.error)
                tally.num_unreadable += 1
                tally.first_error = tally.first_error or frame.error
                record = error_record(place, frame.error, **frame.where)
            else:
                for line in frame.warnings:
                    logger.warning("%s", line)
                tally.num_odd += bool(frame.warnings)
                record = detections_record(place, found, predictor.class_names, **frame.where)
                seen = Seen(frame, found, predictor.class_names, draw_detections)
                for sink in sinks:
                    sink.write(seen)
                tally.add(found.labels, latency)
            if records:
                records.write(record)
            tally.seconds = time.monotonic() - begin
    return tally


def detections_in(predictor: Looks, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Any, float]]:
    """(frame, detections or None if it has no pixels, seconds that it took), in order."""
    for frame in frames:
        if frame.pixels is None:
            yield frame, None, 0.0
            continue
        begin = time.monotonic()
        found = predictor.detect(frame.pixels)
        yield frame, found, time.monotonic() - begin


def refuse_nothing_read(tally: Tally) -> None:
    """Raise an `InputError` if there were images and none of them could be read."""
    if tally.num_unreadable and not tally.num_seen:
        raise InputError(f"none of the {tally.num_unreadable} images could be read; the first: {tally.first_error}")
