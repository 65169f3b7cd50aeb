"""Detections drawn on images and videos."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from engine.errors import InputError
from engine.inference.items import LIVE, FoundItems, Item
from engine.inference.looking import Looked, Looks, Tally, one_by_one, overlapped, refuse_nothing_read, use_frames
from engine.inference.sinks import Output, Sink
from engine.inference.sinks.pictures import PictureSink, Window
from engine.inference.sinks.video import VideoSink
from engine.inference.sources import Frame, Reading, read_frames
from engine.log import get_logger

logger = get_logger(__name__)


def draw_items(
    predictor: Looks,
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
    frames = read_frames(items, Reading(stop or threading.Event()))
    tally = use_frames(predictor, looks_for(items)(predictor, frames), sinks, total=number_of_frames(items), stop=stop)
    refuse_nothing_read(tally)
    logger.info("%s", tally.table())
    logger.info("%d %s drawn to %s%s", tally.num_seen, words_for(items), output_dir, tally.remarks())
    if found.left_out:
        logger.info("%s", found.left_out)
    return tally


def looks_for(items: Sequence[Item]) -> Callable[[Looks, Iterable[Frame]], Iterator[Looked]]:
    """How the frames of `items` are looked at: what does not wait for us, one by one."""
    return one_by_one if any(item.kind in LIVE for item in items) else overlapped


def create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be created ({error.strerror}); name another folder") from error


def originals(items: Sequence[Item]) -> frozenset[str]:
    """The real paths of the files among `items`."""
    return frozenset(os.path.realpath(item.place) for item in items if item.kind not in LIVE)


def number_of_frames(items: Sequence[Item]) -> int | None:
    """How many frames there will be, if that is known before they are read."""
    return len(items) if words_for(items) == "images" else None


def words_for(items: Sequence[Item]) -> str:
    """What the frames of `items` are called.

    Example:
        >>> words_for([Item("image", "a.png", Path("a.png"))]), words_for([Item("camera", "0", Path("camera-0"))])
        ('images', 'frames')
    """
    kinds = {item.kind for item in items}
    return "images" if kinds <= {"image"} else "images and frames" if "image" in kinds else "frames"
