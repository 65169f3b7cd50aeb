"""Which detection matches which ground-truth box, as flat arrays.

Figures of a test (thresholds, curves, confusion, error types, figures per image) are pure functions of `Matches`.

Shapes: D detections, M ground-truth boxes, T IoU thresholds, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from engine.data.annotations import AnnotationTable, CategoryId
from engine.errors import InputError
from engine.evaluation.cocoeval import BoxRows, run_cocoeval

NO_MATCH = -1


@dataclass(frozen=True)
class DetectionRows:
    """One row per detection.

    Attributes:
        image_rows: (D,) int64, index into `AnnotationTable.image_ids`.
        labels: (D,) int64, 0..K-1.
        scores: (D,) float64.
        ranks: (D,) int64, 0 for the highest score in its image and class, 1 for the second, and so on.
        result_rows: (D,) int64, index into the results that were matched.
        gt_rows: (T, D) int64, index into `GroundTruthRows`, `NO_MATCH` where no box is matched.
        ious: (T, D) float64 in [0, 1], IoU with that box; with a crowd region, the share of the detection inside it;
            0 where no box is matched.
        ignored: (T, D) bool, neither true nor false: matched with an ignored box, or with none and itself outside the
            range of areas that was evaluated.
    """

    image_rows: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    result_rows: np.ndarray
    gt_rows: np.ndarray
    ious: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class GroundTruthRows:
    """One row per annotated box, crowd regions included.

    Attributes:
        image_rows: (M,) int64, index into `AnnotationTable.image_ids`.
        labels: (M,) int64, 0..K-1.
        areas: (M,) float64, square pixels, as the annotation file states them.
        crowd: (M,) bool, regions that any number of detections may match.
        ignored: (M,) bool, not to be found: crowd regions, and boxes outside the range of areas that was evaluated.
        annotation_rows: (M,) int64, index into the annotations of the `AnnotationTable`.
        detection_rows: (T, M) int64, index into `DetectionRows`, `NO_MATCH` where no detection matches; of several in
            a crowd region, the one with the lowest score.
    """

    image_rows: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    annotation_rows: np.ndarray
    detection_rows: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Detections of a data set matched with its ground truth.

    A detection competes only with those of a higher score, so `ranks < k` selects what matching the best k detections
    of each image and class would give. Rows are sorted by label, then by image id, then descending by score: a stable
    sort of any selection by score treats detections of equal score as pycocotools does.

    Attributes:
        iou_thresholds: (T,) float64 in (0, 1], the IoU from which a detection matches.
        num_images: those without boxes and detections included.
        num_classes: K.
        detections: one row per detection.
        ground_truth: one row per annotated box.
    """

    iou_thresholds: np.ndarray
    num_images: int
    num_classes: int
    detections: DetectionRows
    ground_truth: GroundTruthRows

    def threshold_index(self, iou: float) -> int:
        """The index along T of an IoU threshold.

        Raises:
            ValueError: the detections were not matched at this threshold.
        """
        # isclose: 0.6 is also found among thresholds that were computed as 0.5 + 2 * 0.05
        found = np.flatnonzero(np.isclose(self.iou_thresholds, iou, rtol=0, atol=1e-9))
        if not len(found):
            raise ValueError(f"no matches at IoU {iou}, only at {', '.join(map(str, self.iou_thresholds.tolist()))}")
        return int(found[0])


def match_detections(
    annotations: AnnotationTable,
    results: Sequence[Mapping[str, Any]],
    category_ids: Sequence[CategoryId],
    iou_thresholds: Sequence[float],
) -> Matches:
    """Match detections with ground truth in each image and class, by the rules of COCO.

    In the order of descending scores, each detection takes the box with the highest IoU of those not yet taken; a crowd
    region only if no other box is left, and then its IoU is the share of the detection inside it. All detections are
    matched, however many an image has.

    Args:
        annotations: of the data set.
        results: COCO result entries, in any order.
        category_ids: label k -> category id; annotations and results of other categories of the data set are left out.
        iou_thresholds: T values in (0, 1].

    Raises:
        InputError: a threshold is out of range, or a result names an image or category that the annotations do not
            have.
    """
    for iou in iou_thresholds:
        if not 0 < iou <= 1:
            raise InputError(f"IoU threshold (TEST.THRESHOLD_IOU) must be in (0, 1], not {iou}")
    no_limit = max(len(results), 1)
    found = run_cocoeval(annotations, results, category_ids, [no_limit], iou_thresholds)
    return _read_matches(*found, len(annotations.image_ids), len(category_ids))


def rows_per_label(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The rows of each label in ascending order.

    Example:
        >>> [rows.tolist() for rows in rows_per_label(np.array([2, 0, 2]), num_classes=3)]
        [[1], [], [0, 2]]
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(num_classes))
    return np.split(order, starts)[1:]  # what lies before the first start has no label


def _read_matches(
    evaluation: COCOeval, ground_truth: BoxRows, detections: BoxRows, num_images: int, num_classes: int
) -> Matches:
    """`Matches` of an evaluation without limit on detections and with a single range of areas."""
    # One cell per class and image that has boxes or detections, in the order of the sorted rows. Ids are rows + 1.
    cells = [cell for cell in evaluation.evalImgs if cell is not None]
    num_det, num_gt = (np.array([len(cell[key]) for cell in cells], dtype=np.int64) for key in ("dtIds", "gtIds"))
    # pycocotools moves the ignored boxes of a cell to its end; `gt_order` says where they belong
    gt_order = np.fromiter(chain.from_iterable(cell["gtIds"] for cell in cells), dtype=np.int64) - 1  # (M,)
    gt_ignored = np.zeros(len(gt_order), dtype=bool)
    gt_ignored[gt_order] = np.fromiter(chain.from_iterable(cell["gtIgnore"] for cell in cells), dtype=bool)
    gt_detections = np.empty((len(evaluation.params.iouThrs), len(gt_order)), dtype=np.int64)
    gt_detections[:, gt_order] = _joined(evaluation, cells, "gtMatches").astype(np.int64) - 1
    gt_rows = _joined(evaluation, cells, "dtMatches").astype(np.int64) - 1  # (T, D), 0 of pycocotools is NO_MATCH
    return Matches(
        iou_thresholds=evaluation.params.iouThrs,
        num_images=num_images,
        num_classes=num_classes,
        detections=DetectionRows(
            image_rows=detections.image_rows,
            labels=detections.labels,
            scores=detections.scores,
            ranks=np.arange(num_det.sum()) - np.repeat(np.cumsum(num_det) - num_det, num_det),
            result_rows=detections.source_rows,
            gt_rows=gt_rows,
            ious=_ious(evaluation, cells, gt_rows, num_det, num_gt),
            ignored=_joined(evaluation, cells, "dtIgnore").astype(bool),
        ),
        ground_truth=GroundTruthRows(
            image_rows=ground_truth.image_rows,
            labels=ground_truth.labels,
            areas=ground_truth.areas,
            crowd=ground_truth.crowd,
            ignored=gt_ignored,
            annotation_rows=ground_truth.source_rows,
            detection_rows=gt_detections,
        ),
    )


def _joined(evaluation: COCOeval, cells: list[dict[str, Any]], key: str) -> np.ndarray:
    """(T, D) or (T, M) array of all cells; without cells (T, 0)."""
    return np.concatenate([np.zeros((len(evaluation.params.iouThrs), 0)), *(cell[key] for cell in cells)], axis=1)


def _ious(
    evaluation: COCOeval, cells: list[dict[str, Any]], gt_rows: np.ndarray, num_det: np.ndarray, num_gt: np.ndarray
) -> np.ndarray:
    """(T, D) IoU of each detection with the box `gt_rows` (T, D) that it matches, 0 for none.

    pycocotools holds a (`num_det`, `num_gt`) matrix per cell. Laid end to end they are rows of varying length, one per
    detection: the value sought lies at the start of the detection's row plus the place of the box in its cell.
    """
    matrices = [evaluation.ious[cell["image_id"], cell["category_id"]] for cell in cells]
    values = np.concatenate([np.zeros(0), *map(np.ravel, matrices)])
    lengths = np.repeat(num_gt, num_det)  # (D,)
    starts = np.cumsum(lengths) - lengths
    first_gt_rows = np.repeat(np.cumsum(num_gt) - num_gt, num_det)
    matched = gt_rows != NO_MATCH
    ious = np.zeros(gt_rows.shape)
    ious[matched] = values[(starts - first_gt_rows + gt_rows)[matched]]
    return ious
