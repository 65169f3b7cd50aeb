"""cfg -> metrics and thresholds of a model on the test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from engine import distributed
from engine.assembly.convention import build_convention
from engine.assembly.data import build_dataset, build_test_loader
from engine.assembly.detector import build_detector
from engine.assembly.device import build_device
from engine.assembly.model import num_classes
from engine.errors import InputError
from engine.evaluation.coco import coco_metrics, matched_part
from engine.evaluation.results import to_coco_results, without_images
from engine.evaluation.tables import metrics_table, thresholds_table
from engine.evaluation.thresholds import fmeasure_thresholds
from engine.files import write_json
from engine.inference.loop import Findings, detect, mean_losses
from engine.log import get_logger


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
    _check_num_classes(cfg, model, dataset)
    logger.info("testing on %s: %d images", name, len(dataset))
    found = detect(detector, loader, build_device(cfg), convention=build_convention(cfg))
    if found is None:
        return None
    _report_unreadable(name, found.unreadable, len(dataset))
    results = to_coco_results(found.detections, dataset.category_ids)
    folder = Path(cfg.OUTPUT_DIR) / "inference" / name
    outcome = score_results(cfg, dataset, results, list(found.unreadable))
    for file, content in (("bbox", results), *outcome.items()):
        write_json(folder / f"{file}.json", content)
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


class Validation:
    """`DATASETS.VAL`, read once to evaluate a model on any number of times: `Validation(cfg, class_names)(model)`.

    As `evaluate`, but always without `TEST.BBOX_AUG`, and nothing is written.

    Args:
        cfg: a configuration.
        class_names: of the labels.

    Raises:
        InputError: a data set that cannot be used.
    """

    def __init__(self, cfg: CfgNode, class_names: Sequence[str]) -> None:
        self._cfg = cfg
        self._loaders = {name: build_test_loader(cfg, name, class_names) for name in cfg.DATASETS.VAL}
        self._truths = {
            name: matched_part(loader.dataset.coco_dict()) if distributed.is_main() else {}
            for name, loader in self._loaders.items()
        }
        self._reported: dict[str, dict[int | str, str]] = {name: {} for name in self._loaders}

    def __call__(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """{data set: {"figures", "thresholds"}} on every process.

        Figures are those of "bbox" in `metrics.json` and, with `SOLVER.VALIDATION.LOSS`, the losses by name and their
        sum "loss", each a mean over the images of `image_losses`. A data set that gives none (weights that diverged, no
        image that can be read) is named in a warning and has {} and None.
        """
        return distributed.broadcast_object({name: self._outcome(name, model) for name in self._loaders})

    def _outcome(self, name: str, model: nn.Module) -> dict[str, Any] | None:
        cfg, loader = self._cfg, self._loaders[name]
        found = detect(model, loader, build_device(cfg), build_convention(cfg), with_losses=cfg.SOLVER.VALIDATION.LOSS)
        if found is None:
            return None
        try:  # the other processes wait for an answer, and the training is worth more than it
            return self._scored(name, found)
        except InputError as error:
            get_logger(__name__).warning("no validation on %s: %s", name, error)
            return {"figures": {}, "thresholds": None}

    def _scored(self, name: str, found: Findings) -> dict[str, Any]:
        dataset = self._loaders[name].dataset
        if found.unreadable != self._reported[name]:
            _report_unreadable(name, found.unreadable, len(dataset))
            self._reported[name] = found.unreadable
        results = to_coco_results(found.detections, dataset.category_ids)
        outcome = score_results(self._cfg, dataset, results, list(found.unreadable), self._truths[name])
        figures = {**outcome["metrics"]["bbox"], **mean_losses(found.losses)}
        return {"figures": figures, "thresholds": outcome["thresholds"]}


def _check_num_classes(cfg: CfgNode, model: nn.Module, dataset: Any) -> None:
    """Labels of a model that does not know its classes by name are those of the data set, one by one."""
    count = len(dataset.class_names)
    if not model.class_names and num_classes(cfg) != count:
        raise InputError(
            f"data set {dataset.name} has {count} classes, but the model has {num_classes(cfg)}, which its weights do "
            "not name: test it on a data set with the classes it was trained on"
        )


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
    cfg: CfgNode,
    dataset: Any,
    results: list[dict],
    skipped_images: Sequence[int | str] = (),
    coco_dict: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """{"metrics", "thresholds"} of COCO `results` on `dataset` (a `data.coco.CocoDataset`) without `skipped_images`.

    Its annotations are read again unless given as `coco_dict`.
    """
    truth = (
        without_images(dataset.coco_dict() if coco_dict is None else coco_dict, skipped_images),
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
        "thresholds": fmeasure_thresholds(
            *truth, iou=cfg.TEST.THRESHOLD_IOU, beta=cfg.TEST.THRESHOLD_BETA, rule=cfg.TEST.THRESHOLD_RULE
        ),
    }
