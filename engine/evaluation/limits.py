"""What limits on the number of detections keep from a test: detections not counted, objects not to be found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.evaluation.matches import Matches


def limit_notes(matches: Matches, max_dets: int, per_image: Mapping[str, int]) -> list[str]:
    """A sentence for each limit that makes a difference; [] if none does.

    Args:
        matches: of a data set; crowd regions do not count as objects.
        max_dets: detections per image and class that AP and AR see (`TEST.MAX_DETS`).
        per_image: limits of the model, by the key that sets them, on what it finds in an image; 0 for none.
    """
    detections, truth = matches.detections, matches.ground_truth
    images = truth.image_rows[~truth.crowd]
    labels = truth.labels[~truth.crowd]
    of_image = np.bincount(images, minlength=matches.num_images)  # objects
    of_cell = np.bincount(images * matches.num_classes + labels)  # of an image and class
    notes = []
    if num_cut := int((detections.ranks >= max_dets).sum()):
        beyond = f"are beyond the best {max_dets} of their image and class (TEST.MAX_DETS)"
        notes.append(f"{num_cut} of {len(detections.ranks)} detections {beyond}; AP and AR do not count them")
    crowded = np.unique(np.flatnonzero(of_cell > max_dets) // max(matches.num_classes, 1))
    if len(crowded):
        objects = f"more than {max_dets} objects of one class (up to {of_cell.max()})"
        notes.append(f"{_images(len(crowded))} {objects}, of which AP and AR see no more; raise TEST.MAX_DETS")
    for key, limit in per_image.items():
        num = int((of_image > limit).sum())
        if limit and num:
            objects = f"more than {limit} objects (up to {of_image.max()})"
            notes.append(f"{_images(num)} {objects}, but the model finds at most {limit}; raise {key}")
    return notes


def _images(number: int) -> str:
    return f"{number} {'image holds' if number == 1 else 'images hold'}"
