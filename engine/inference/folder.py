"""Detections drawn on a folder of images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from engine.data.image_file import read_image, write_image
from engine.errors import InputError
from engine.inference.predictor import ImagePredictor
from engine.log import get_logger
from engine.tables import aligned_table
from engine.visualize.draw import draw_detections

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
ESCAPE_KEY = 27

logger = get_logger(__name__)


def list_images(folder: Path) -> list[Path]:
    """The image files of `folder` by name.

    Raises:
        InputError: there is no such folder, or it contains no images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder of the images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def draw_folder(
    predictor: ImagePredictor, paths: Sequence[Path], output_dir: Path, show: bool = False
) -> dict[Path, np.ndarray]:
    """Write each image with its detections to `output_dir` under its own name, and log a table of counts.

    A file that cannot be read is named in a warning and skipped.

    Args:
        paths: different image files.
        output_dir: created if it does not exist.
        show: also show each picture in a window; after Esc, no further ones.

    Returns:
        For each image that could be read, the number of detections of each class (K,).

    Raises:
        InputError: none of the files can be read, a picture cannot be written or shown, or `output_dir` is the folder
            of the images.
    """
    _create_output_dir(output_dir, paths)
    counts: dict[Path, np.ndarray] = {}
    for path in tqdm(paths, desc="draw", disable=not sys.stderr.isatty()):
        try:
            image = read_image(path)
        except InputError as error:
            logger.warning("skipped: %s", error)
            continue
        detections = predictor(image)
        drawn = draw_detections(image, detections, predictor.class_names)
        write_image(output_dir / path.name, drawn)
        counts[path] = np.bincount(detections.labels.numpy(), minlength=len(predictor.class_names))
        show = show and _show(path.name, drawn)
    num_skipped = len(paths) - len(counts)
    if not counts:
        raise InputError(f"none of the {num_skipped} images could be read")
    logger.info("%s", counts_table(counts, predictor))
    skipped = f", {num_skipped} unreadable skipped" if num_skipped else ""
    logger.info("%d images drawn to %s%s", len(counts), output_dir, skipped)
    return counts


def _create_output_dir(output_dir: Path, paths: Sequence[Path]) -> None:
    if any(path.parent.resolve() == output_dir.resolve() for path in paths):
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
