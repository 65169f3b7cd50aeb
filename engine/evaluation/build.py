"""cfg -> metrics and thresholds of a model on the test sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from engine import distributed
from engine.data.build import build_dataset, build_test_loader
from engine.errors import InputError
from engine.evaluation.coco import coco_metrics
from engine.evaluation.results import to_coco_results, without_images, write_json_atomic
from engine.evaluation.tables import metrics_table, thresholds_table
from engine.evaluation.thresholds import fmeasure_thresholds
from engine.inference.build import build_detector
from engine.inference.loop import detect
from engine.log import get_logger
from engine.modeling.build import build_device, pixel_of


def evaluate(cfg: CfgNode, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Test `model` on every data set of `DATASETS.TEST`.

    Writes `bbox.json`, `metrics.json` and `thresholds.json` to `OUTPUT_DIR/inference/NAME/` and the tables to the log.
    Images that cannot be read are named in a warning and in `metrics.json` ("skipped_images"), and left out of the
    ground truth too.

    Returns:
        {data set: {"metrics": ..., "thresholds": ...}}, the contents of those files, on every process.

    Raises:
        InputError: a data set that cannot be used, or none of its images can be read.
    """
    outcome = {name: _evaluate_on(cfg, model, name) for name in cfg.DATASETS.TEST}
    return distributed.broadcast_object(outcome)


def check_test_sets(cfg: CfgNode, class_names: Sequence[str]) -> None:
    """Raise the `InputError` that a set of `DATASETS.TEST` would raise after training."""
    for name in cfg.DATASETS.TEST:
        build_dataset(cfg, name, class_names)


def _evaluate_on(cfg: CfgNode, model: nn.Module, name: str) -> dict[str, Any] | None:
    logger = get_logger(__name__)
    detector, transform = build_detector(cfg, model)
    loader = build_test_loader(cfg, name, model.class_names or None, transform)
    dataset = loader.dataset
    logger.info("testing on %s: %d images", name, len(dataset))
    found = detect(detector, loader, build_device(cfg), pixel=pixel_of(cfg))
    if found is None:
        return None
    _report_unreadable(name, found.unreadable, len(dataset))
    results = to_coco_results(found.detections, dataset.category_ids)
    folder = Path(cfg.OUTPUT_DIR) / "inference" / name
    outcome = score_results(cfg, dataset, results, list(found.unreadable))
    for file, content in (("bbox", results), *outcome.items()):
        write_json_atomic(folder / f"{file}.json", content)
    logger.info(
        "%s\n\n%s\n\n%s\nwritten to %s",
        name,
        metrics_table(outcome["metrics"]),
        thresholds_table(outcome["thresholds"]),
        folder,
    )
    if found.unreadable:
        logger.warning("%s: these figures are without %d unreadable images", name, len(found.unreadable))
    return outcome


def _report_unreadable(name: str, unreadable: dict[int | str, str], num_images: int) -> None:
    if not unreadable:
        return
    if len(unreadable) == num_images:
        reason = next(iter(unreadable.values()))
        raise InputError(f"data set {name}: none of its {num_images} images can be read; the first: {reason}")
    logger = get_logger(__name__)
    for reason in unreadable.values():
        logger.warning("unreadable image left out: %s", reason)
    logger.warning(
        "%s: %d of %d images cannot be read; they are left out, and their boxes too", name, len(unreadable), num_images
    )


def score_results(
    cfg: CfgNode, dataset: Any, results: list[dict], skipped_images: Sequence[int | str] = ()
) -> dict[str, Any]:
    """{"metrics", "thresholds"} of COCO `results` on `dataset` (a `data.coco.CocoDataset`) without `skipped_images`."""
    truth = (
        without_images(dataset.coco_dict(), skipped_images),
        results,
        dataset.class_names,
        dataset.category_ids,
    )
    return {
        "metrics": {
            **coco_metrics(*truth),
            "num_images": len(dataset) - len(skipped_images),
            "skipped_images": list(skipped_images),
        },
        "thresholds": fmeasure_thresholds(*truth, iou=cfg.TEST.THRESHOLD_IOU, beta=cfg.TEST.THRESHOLD_BETA),
    }
