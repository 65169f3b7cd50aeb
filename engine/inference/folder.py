"""Detections drawn on images."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from engine.data.find_images import FoundImages
from engine.data.image_file import collected_damage, picture_name, write_image
from engine.errors import InputError
from engine.inference.predictor import ImagePredictor
from engine.log import get_logger
from engine.tables import aligned_table
from engine.visualize.draw import draw_detections

ESCAPE_KEY = 27

logger = get_logger(__name__)


def draw_images(
    predictor: ImagePredictor, images: FoundImages, output_dir: Path, show: bool = False
) -> dict[Path, np.ndarray]:
    """Write each image with its detections to `output_dir`, and log a table of counts and what was left out.

    A picture has the name of its image, below the same sub-folders; a number is added to a name that is taken, and
    `.png` where the suffix is not that of a format we write. A file that cannot be read is named in a warning and
    skipped. Pictures of an earlier run are replaced.

    Args:
        images: see `find_images`.
        output_dir: created if it does not exist.
        show: also show each picture in a window; after Esc, no further ones.

    Returns:
        For each image that could be read, the number of detections of each class (K,).

    Raises:
        InputError: none of the files can be read, a picture cannot be written or shown, or would overwrite an image.
    """
    originals = {os.path.realpath(path) for path in images.paths}
    _create_output_dir(output_dir, images.paths)
    counts: dict[Path, np.ndarray] = {}
    taken: set[str] = set()
    skipped: list[str] = []
    num_odd = 0
    pairs = list(zip(images.paths, images.names, strict=True))
    for path, name in tqdm(pairs, desc="draw", disable=not sys.stderr.isatty()):
        try:
            with collected_damage() as odd:
                pixels = predictor.pixels(path)
        except InputError as error:
            logger.warning("skipped: %s", error)
            skipped.append(str(error))
            continue
        for line in odd:
            logger.warning("%s", line)
        num_odd += bool(odd)
        detections = predictor.detect(pixels)
        drawn = draw_detections(pixels, detections, predictor.class_names)
        output = output_dir / _free_name(name.parent / picture_name(name, drawn.shape[:2]), taken)
        if os.path.realpath(output) in originals:
            raise InputError(f"{output} is one of the images, which would be overwritten; name another --output-dir")
        write_image(output, drawn)
        counts[path] = np.bincount(detections.labels.numpy(), minlength=len(predictor.class_names))
        show = show and _show(path.name, drawn)
    if not counts:
        raise InputError(f"none of the {len(skipped)} images could be read; the first: {skipped[0]}")
    logger.info("%s", counts_table(counts, predictor))
    unreadable = f", {len(skipped)} unreadable skipped" if skipped else ""
    warned = f", {num_odd} of them with a warning" if num_odd else ""
    logger.info("%d images drawn to %s%s%s", len(counts), output_dir, warned, unreadable)
    if images.left_out:
        logger.info("%s", images.summary())
    return counts


def _free_name(name: Path, taken: set[str]) -> Path:
    """`name`, with a number if it is in `taken` (`a_2.png`), to which it is added.

    Names that a file system may not tell apart (A and a, Unicode forms) count as the same.
    """
    free, number = name, 1
    while (key := unicodedata.normalize("NFC", free.as_posix()).casefold()) in taken:
        number += 1
        free = name.with_name(f"{name.stem}_{number}{name.suffix}")
    taken.add(key)
    return free


def _create_output_dir(output_dir: Path, paths: Sequence[Path]) -> None:
    if os.path.realpath(output_dir) in {os.path.realpath(path.parent) for path in paths}:
        raise InputError(f"{output_dir} is the folder of the images, which would be overwritten; name another folder")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output_dir} cannot be created ({error.strerror}); name another folder") from error


def counts_table(counts: dict[Path, np.ndarray], predictor: ImagePredictor) -> str:
    """Detections of each class, the images they are in, and the threshold they passed."""
    table = np.stack(list(counts.values()))  # (images, K)
    rows = [
        [name, str(table[:, k].sum()), str((table[:, k] > 0).sum()), f"{predictor.thresholds[k]:.3f}"]
        for k, name in enumerate(predictor.class_names)
    ]
    rows.append(["all", str(table.sum()), str((table.sum(axis=1) > 0).sum()), ""])
    return aligned_table(["class", "detections", "images", "threshold"], rows)


def _show(name: str, image: np.ndarray) -> bool:
    try:
        cv2.imshow(name, image)
    except cv2.error as error:
        raise InputError("no window can be opened here (no display, or OpenCV without windows); omit --show") from error
    key = cv2.waitKey(0)
    cv2.destroyWindow(name)
    return key != ESCAPE_KEY
