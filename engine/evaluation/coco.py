"""The COCO figures, computed by pycocotools.

Shapes: K classes, T IoU thresholds, R recall points, A area ranges, M detection limits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.errors import InputError

AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # suffix of a figure -> index of pycocotools' area range
MAX_DETS = (1, 10, 100)
_READ = ("image_id", "category_id", "bbox", "area", "iscrowd")


def coco_metrics(
    coco_dict: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """The object of `metrics.json`.

    Args:
        coco_dict: COCO annotations, complete (`id`, `area`, `iscrowd`), not modified.
        results: COCO result entries; no entries give an AP of 0 wherever there is ground truth.
        class_names: label k -> name.
        category_ids: label k -> category id.

    Returns:
        `{"bbox": {"AP", "AP50", ...}, "per_class": {name: {"AP", ..., "num_gt"}}}`, fractions in
        [0, 1], -1 where there is no ground truth; `num_gt` counts boxes that are not crowds.

    Raises:
        InputError: a result names an image or category that the annotations do not have.
    """
    names = unique_names(class_names)
    evaluation = match(coco_dict, results, category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    num_gt = count_ground_truth(coco_dict, category_ids)
    per_class = {name: {**_figures(evaluation, slice(k, k + 1)), "num_gt": num_gt[k]} for k, name in enumerate(names)}
    return {"bbox": _figures(evaluation, slice(None)), "per_class": per_class}


def match(
    coco_dict: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou_thresholds: Sequence[float] | None = None,
    max_dets: Sequence[int] = MAX_DETS,
    all_areas: bool = True,
) -> COCOeval:
    """Match detections with ground truth, per image and class, as pycocotools does.

    Ids are renumbered from 1: pycocotools takes an annotation whose id is 0 for "no match", and
    cannot mix int and str image ids. So category k + 1 of the returned object is label k.

    Returns:
        A `COCOeval` after `evaluate()`, before `accumulate()`.
    """
    image_ids = _ordered([image["id"] for image in coco_dict["images"]])
    image_index = {id_: index for index, id_ in enumerate(image_ids, 1)}
    category_index = {id_: index for index, id_ in enumerate(category_ids, 1)}
    other_categories = {category["id"] for category in coco_dict["categories"]} - set(category_ids)
    truth = [
        _renumbered(gt, image_index, category_index)
        | {
            "area": gt.get("area", gt["bbox"][2] * gt["bbox"][3]),
            "iscrowd": int(gt.get("iscrowd", 0)),
        }
        for gt in coco_dict["annotations"]
        if gt["category_id"] in category_index
    ]
    found = []
    for index, result in enumerate(results):
        if result["category_id"] in other_categories:
            continue
        try:
            row = _renumbered(result, image_index, category_index)
        except KeyError as error:
            raise InputError(
                f"result {index}: image or category id {error} is not in the annotations;"
                " evaluate on the data set the results were made on"
            ) from None
        area = result["bbox"][2] * result["bbox"][3]
        found.append(row | {"area": area, "iscrowd": 0, "score": result["score"]})
    ids = list(image_index.values()), list(category_index.values())
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_indexed(*ids, truth), _indexed(*ids, found), iouType="bbox")
        params = evaluation.params
        params.maxDets = list(max_dets)
        if iou_thresholds is not None:
            params.iouThrs = np.asarray(iou_thresholds, dtype=np.float64)
        if not all_areas:
            params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
        evaluation.evaluate()
    return evaluation


def matched_part(coco_dict: Mapping[str, Any]) -> dict[str, Any]:
    """COCO annotations without what `match` does not read (outlines, file names, ...): small enough to keep.

    Example:
        >>> hole = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 2, 0, 2]]}
        >>> matched_part({"images": [{"id": 1}], "annotations": [hole], "categories": [{"id": 3}]})["annotations"]
        [{'image_id': 1, 'category_id': 3, 'bbox': [0, 0, 2, 2]}]
    """
    return {
        "images": [{"id": image["id"]} for image in coco_dict["images"]],
        "annotations": [{key: gt[key] for key in _READ if key in gt} for gt in coco_dict["annotations"]],
        "categories": [{"id": category["id"]} for category in coco_dict["categories"]],
    }


def count_ground_truth(coco_dict: Mapping[str, Any], category_ids: Sequence[int]) -> list[int]:
    """Boxes of each label, crowds not counted."""
    label_of = {id_: k for k, id_ in enumerate(category_ids)}
    counts = [0] * len(category_ids)
    for gt in coco_dict["annotations"]:
        if gt["category_id"] in label_of and not gt.get("iscrowd", 0):
            counts[label_of[gt["category_id"]]] += 1
    return counts


def unique_names(class_names: Sequence[str]) -> Sequence[str]:
    """`class_names`, proved to be different, since they are keys of the files we write."""
    doubled = sorted({name for name in class_names if class_names.count(name) > 1})
    if doubled:
        raise InputError(f"class name {doubled[0]!r} stands for several categories; rename one in the annotation file")
    return class_names


def _figures(evaluation: COCOeval, classes: slice) -> dict[str, float]:
    """The twelve figures of `COCOeval.summarize` over some classes."""
    precision = evaluation.eval["precision"][:, :, classes]  # (T, R, K, A, M)
    recall = evaluation.eval["recall"][:, classes]  # (T, K, A, M)
    iou_thresholds = evaluation.params.iouThrs
    at_50, at_75 = (np.isclose(iou_thresholds, iou) for iou in (0.5, 0.75))
    figures = {
        "AP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[at_50][..., 0, -1]),
        "AP75": _mean(precision[at_75][..., 0, -1]),
    }
    figures |= {f"AP{s}": _mean(precision[..., a, -1]) for s, a in AREAS.items() if s}
    figures |= {f"AR{limit}": _mean(recall[..., 0, m]) for m, limit in enumerate(MAX_DETS)}
    return figures | {f"AR{s}": _mean(recall[..., a, -1]) for s, a in AREAS.items() if s}


def _mean(values: np.ndarray) -> float:
    """Mean of the defined values; -1 (pycocotools' "undefined") when there is none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _renumbered(
    row: Mapping[str, Any], image_index: Mapping[Any, int], category_index: Mapping[Any, int]
) -> dict[str, Any]:
    return {
        "image_id": image_index[row["image_id"]],
        "category_id": category_index[row["category_id"]],
        "bbox": row["bbox"],
    }


def _indexed(image_ids: list[int], category_ids: list[int], boxes: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": id_} for id_ in image_ids],
        "categories": [{"id": id_} for id_ in category_ids],
        "annotations": [box | {"id": index} for index, box in enumerate(boxes, 1)],
    }
    coco.createIndex()
    return coco


def _ordered(image_ids: list[int | str]) -> list[int | str]:
    """Sorted, as pycocotools visits them: the order decides between detections of equal score."""
    return sorted(set(image_ids), key=lambda id_: (isinstance(id_, str), id_))
