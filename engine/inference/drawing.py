"""Detections drawn on images and videos."""

from __future__ import annotations

import threading
from pathlib import Path

from engine.errors import InputError
from engine.inference.detect_frames import FramePredictor, Tally, detect_frames, refuse_nothing_read, use_frames
from engine.inference.items import FoundItems, number_of_frames, originals, words_for
from engine.inference.sinks import Output, Sink
from engine.inference.sinks.pictures import PictureSink, Window
from engine.inference.sinks.video import VideoSink
from engine.inference.sources import Reading
from engine.log import get_logger

logger = get_logger(__name__)


def draw_items(
    predictor: FramePredictor,
    found: FoundItems,
    output_dir: Path,
    show: bool = False,
    stop: threading.Event | None = None,
) -> Tally:
    """Write each image and video with its detections to `output_dir`, and log a table of counts and what was left out.

    A picture has the name of its image, below the same sub-folders; a number is added to a name that is taken, and
    `.png` where the suffix is not that of a format we write. A file that cannot be read is named in a warning and
    skipped. Pictures of an earlier run are replaced.

    Args:
        found: see `find_items`.
        output_dir: created if it does not exist.
        show: also show each picture in a window; after Esc, no further ones.
        stop: ends the run after the current image when it is set.

    Raises:
        InputError: none of the files can be read, a picture cannot be written or shown, or would overwrite an image.
    """
    items = found.items
    create_folder(output_dir)
    output = Output(predictor.class_names, originals(items), with_video=True)
    sinks: list[Sink] = [PictureSink(output_dir, output), VideoSink(output_dir, output)]
    sinks += [Window()] if show else []
    results = detect_frames(predictor, items, Reading(stop or threading.Event()))
    tally = use_frames(predictor, results, sinks, total=number_of_frames(items), stop=stop)
    refuse_nothing_read(tally)
    logger.info("%s", tally.table())
    logger.info("%d %s drawn to %s%s", tally.num_seen, words_for(items), output_dir, tally.remarks())
    if found.left_out:
        logger.info("%s", found.left_out)
    return tally


def create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be created ({error.strerror}); name another folder") from error
