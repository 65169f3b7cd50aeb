"""cfg -> detections in images, videos and cameras, with a record from which a killed run goes on."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from yacs.config import CfgNode

from engine.assembly.detector import Predictor
from engine.data.find_images import FoundImages
from engine.errors import EXIT_SAVED, Interrupted
from engine.files import sha256
from engine.inference.detect_frames import Tally, detect_frames, one_by_one, refuse_nothing_read, use_frames
from engine.inference.items import LIVE, FoundItems, Item, number_of_frames, originals, words_for
from engine.inference.ray_pipeline import Cluster, detect_on_ray
from engine.inference.records import RecordFile
from engine.inference.run_folder import RunFolder, Shard
from engine.inference.sinks.chosen import USUAL, USUAL_OF_LIVE, build_sinks, write_tables
from engine.inference.sinks.pictures import Window
from engine.inference.sources import Reading
from engine.inference.watch import WatchedFolder
from engine.log import get_logger
from engine.runtime.card_file import model_files
from engine.signals import Answer, current_watch

NO_INFLUENCE = (
    "OUTPUT_DIR",
    "DATASETS",
    "SOLVER",
    "DATALOADER.NUM_WORKERS",
    "SEED",
    "MODEL.DEVICE",
    "MODEL.WEIGHT",
    "TEST.IMS_PER_BATCH",
)
"""Keys that do not change what is found."""
HASH_DIGITS = 16
"""How many hexadecimal digits of a SHA-256 are recorded."""
PATIENCE_SECONDS = 10.0
"""How long after a signal the current image may take; then the process ends, which loses nothing but this image."""

logger = get_logger(__name__)


@dataclass(frozen=True)
class PredictOptions:
    """How a run looks at its inputs.

    Attributes:
        output_dir: of the records and all that is saved.
        save: names of `SINKS` and `TABLES`; None: pictures of images, videos of videos, nothing else of cameras.
        threshold: one score threshold for all classes instead of the stored ones.
        show: in a window, too.
        resume, overwrite: see `RunFolder`.
        shard: which of several processes this is.
        timeout: see `Reading.timeout` and `WatchedFolder.timeout`; None for their own.
    """

    output_dir: Path
    save: tuple[str, ...] | None = None
    threshold: float | None = None
    show: bool = False
    resume: bool = False
    overwrite: bool = False
    shard: Shard = Shard()
    timeout: float | None = None


def predict(cfg: CfgNode, weights: str, inputs: FoundItems | WatchedFolder, options: PredictOptions) -> Tally | None:
    """Detect in all inputs, and write records, pictures and what else `options.save` names to its folder.

    Returns:
        What was seen; None if everything was done already.

    Raises:
        InputError: the model, the inputs or the folder cannot be used, or no image could be read.
        Interrupted: a signal ended the run after its current image.
    """
    everything = inputs.items if isinstance(inputs, FoundItems) else []
    block = min(cfg.TEST.IMS_PER_BATCH, max(len(everything) // options.shard.count, 1))
    items = options.shard.part(everything, block)
    facts = _facts(cfg, weights, inputs, options.threshold)
    folder = RunFolder(options.output_dir, options.shard, facts, block, options.resume, options.overwrite)
    try:
        folder.claim(items)
        for note in folder.notes:
            logger.warning("%s", note)
        items = [item for item in items if item.kind in LIVE or item.shown not in folder.done]
        is_done = isinstance(inputs, FoundItems) and not items
        predictor = None if is_done else Predictor(cfg, weights, options.threshold)
        folder.begin()
        tally = _detect(predictor, inputs, items, options, folder) if predictor else None
        if isinstance(inputs, FoundItems) and inputs.left_out:
            logger.info("%s", inputs.left_out)
        if is_done:
            folder.complete()
            _write_tables(folder, options)
            logger.info("nothing left to do: %s has the records of all %d inputs", folder.records, len(folder.done))
    finally:
        folder.release()
    return tally


def predict_on_ray(
    cfg: CfgNode,
    weights: str,
    images: FoundImages,
    output_dir: Path,
    cluster: Cluster,
    threshold: float | None = None,
) -> None:
    """Detect in `images` on a Ray cluster, see `detect_on_ray`; mistakes in the weights are reported before it starts.

    Args:
        output_dir: a new folder.
        threshold: one score threshold for all classes instead of the stored ones.
    """
    here = cfg.clone()  # this machine need not have a GPU
    here.defrost()
    here.MODEL.DEVICE = "cpu"
    here.freeze()
    predictor = Predictor(here, weights, threshold)
    places = [str(path) for path in images.paths]
    build = partial(Predictor, cfg, weights, threshold)
    detect_on_ray(build, predictor.reading, places, output_dir, cluster, predictor.batch_size)
    logger.info("%d images: %s", len(places), output_dir)
    if images.left_out:
        logger.info("%s", images.summary())


def _detect(
    predictor: Predictor,
    inputs: FoundItems | WatchedFolder,
    items: Sequence[Item],
    options: PredictOptions,
    folder: RunFolder,
) -> Tally:
    """Detect in `items`, what is left of `inputs`, or in the images that come into a watched folder."""
    stop = _Stop(folder)
    everything = inputs.items if isinstance(inputs, FoundItems) else []
    first = folder.num_frames.get(items[0].shown, 0) if items else 0
    timeout = {} if options.timeout is None else {"timeout": options.timeout}
    reading = Reading(stop.event, first=first, **timeout)
    if isinstance(inputs, WatchedFolder):
        inputs = replace(inputs, done=list(folder.done), pixels=predictor.pixels)
        results = one_by_one(predictor, inputs.frames(stop.event))
        logger.info("watching %s; Ctrl-C ends it", inputs.folder)
    else:
        results = detect_frames(predictor, items, reading)
    is_live = any(item.kind in LIVE for item in items)
    names = (USUAL_OF_LIVE if is_live else USUAL) if options.save is None else options.save
    sinks = build_sinks(names, options.output_dir, predictor.class_names, originals(everything))
    sinks += [Window()] if options.show else []
    with stop, closing(RecordFile(folder.records)) as records:
        tally = use_frames(predictor, results, sinks, records, number_of_frames(items) if items else None, stop.event)
    if not stop.event.is_set():
        folder.complete()
    written = _write_tables(folder, options)
    logger.info("%s", tally.table())
    what = words_for(items)
    logger.info("%d %s in %s%s: %s", tally.num_seen, what, written, tally.remarks(), tally.pace())
    stop.raise_if_set()
    refuse_nothing_read(tally)
    return tally


def _facts(cfg: CfgNode, weights: str, inputs: FoundItems | WatchedFolder, threshold: float | None) -> dict[str, Any]:
    """What the records of a run depend on, in words and hashes."""
    if isinstance(inputs, WatchedFolder):
        places = f"watched: {inputs.folder}"
    else:
        shown = "\n".join(item.shown for item in inputs.items)
        places = f"{len(inputs.items)} ({_digest(shown.encode(errors='surrogateescape'))})"
    relevant = cfg.clone()
    relevant.defrost()
    for key in NO_INFLUENCE:
        node = relevant
        *path, name = key.split(".")
        for part in path:
            node = node[part]
        del node[name]
    return {
        "weights": " ".join([weights, *(sha256(each)[:HASH_DIGITS] for each in model_files(weights))]),
        "configuration": _digest(str(relevant).encode()),
        "threshold": threshold,
        "inputs": places,
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


def _write_tables(folder: RunFolder, options: PredictOptions) -> Path:
    """Make one file of those of several processes, if all are there, and the tables from it; returns that file."""
    records = folder.merge()
    if records is None:
        return folder.records
    for path in write_tables(options.save or (), records, options.output_dir):
        logger.info("written: %s", path)
    return records


class _Stop:
    """Within the block, a first signal ends the run after the current image, see `Tally` for what was seen."""

    def __init__(self, folder: RunFolder) -> None:
        self.event, self._folder, self._number = threading.Event(), folder, 0

    def __enter__(self) -> None:
        self._watch = current_watch()
        if self._watch:
            self._before = self._watch.answer
            self._watch.answer = Answer(self._end, PATIENCE_SECONDS, self._hear)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch and not self.event.is_set():
            self._watch.answer = self._before

    def raise_if_set(self) -> None:
        if self.event.is_set():
            logger.info("%s", self._line("after the current image"))
            raise Interrupted

    def _hear(self, number: int) -> None:
        self._number = number
        self.event.set()

    def _end(self, number: int) -> tuple[str, int]:
        return self._line("in the middle of an image"), EXIT_SAVED

    def _line(self, where: str) -> str:
        name = signal.Signals(self._number).name
        return f"{name}: ended {where}; {self._folder.records} stays, go on with --resume"
