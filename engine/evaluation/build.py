"""cfg -> metrics and thresholds of a model on the test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from engine import distributed
from engine.data.build import build_test_loader
from engine.evaluation.coco import coco_metrics
from engine.evaluation.results import to_coco_results, write_json_atomic
from engine.evaluation.tables import metrics_table, thresholds_table
from engine.evaluation.thresholds import fmeasure_thresholds
from engine.inference.loop import detect
from engine.log import get_logger
from engine.modeling.build import build_device, pixel_of


def evaluate(cfg: CfgNode, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Test `model` on every data set of `DATASETS.TEST`.

    Writes `bbox.json`, `metrics.json` and `thresholds.json` to `OUTPUT_DIR/inference/NAME/` and the tables to the log.

    Returns:
        {data set: {"metrics": ..., "thresholds": ...}}, the contents of those files, on every process.
    """
    outcome = {name: _evaluate_on(cfg, model, name) for name in cfg.DATASETS.TEST}
    return distributed.broadcast_object(outcome)


def _evaluate_on(cfg: CfgNode, model: nn.Module, name: str) -> dict[str, Any] | None:
    logger = get_logger(__name__)
    loader = build_test_loader(cfg, name, model.class_names or None)
    dataset = loader.dataset
    logger.info("testing on %s: %d images", name, len(dataset))
    detections = detect(model, loader, build_device(cfg), pixel=pixel_of(cfg))
    if detections is None:
        return None
    results = to_coco_results(detections, dataset.category_ids)
    folder = Path(cfg.OUTPUT_DIR) / "inference" / name
    outcome = score_results(cfg, dataset, results)
    for file, content in (("bbox", results), *outcome.items()):
        write_json_atomic(folder / f"{file}.json", content)
    logger.info(
        "%s\n\n%s\n\n%s\nwritten to %s",
        name,
        metrics_table(outcome["metrics"]),
        thresholds_table(outcome["thresholds"]),
        folder,
    )
    return outcome


def score_results(cfg: CfgNode, dataset: Any, results: list[dict]) -> dict[str, Any]:
    """{"metrics", "thresholds"} of COCO `results` on `dataset` (a `data.coco.CocoDataset`)."""
    truth = (dataset.coco_dict(), results, dataset.class_names, dataset.category_ids)
    return {
        "metrics": coco_metrics(*truth),
        "thresholds": fmeasure_thresholds(*truth, iou=cfg.TEST.THRESHOLD_IOU, beta=cfg.TEST.THRESHOLD_BETA),
    }
