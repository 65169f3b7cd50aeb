"""cfg -> metrics and thresholds of a model on the test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from engine import distributed
from engine.assembly.convention import build_convention
from engine.assembly.data import build_dataset, build_test_loader, build_tile_loader, report_test_data
from engine.assembly.detector import build_detector
from engine.assembly.device import build_device
from engine.assembly.model import num_classes
from engine.assembly.process import output_dir_claimed
from engine.assembly.tiling import is_tiled
from engine.config.parts import dense_name
from engine.data.annotations import ImageId
from engine.data.dataset import DetectionDataset
from engine.data.transforms import Transform
from engine.errors import InputError, shown
from engine.evaluation.coco import coco_metrics
from engine.evaluation.limits import limit_notes
from engine.evaluation.matches import match_detections
from engine.evaluation.result_files import RESULT_FORMATS, result_entries
from engine.evaluation.results import to_coco_results, without_images
from engine.evaluation.tables import metrics_table, thresholds_table
from engine.evaluation.thresholds import fmeasure_thresholds
from engine.files import write_json
from engine.inference.loop import detect, find_losses, mean_losses
from engine.log import get_logger
from engine.registry import import_modules, lookup
from engine.structures import Detections


def evaluate(cfg: CfgNode, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Test `model` on every data set of `DATASETS.TEST`.

    Writes `bbox.json`, `metrics.json`, `thresholds.json` and the files of `TEST.RESULT_FORMATS` to
    `OUTPUT_DIR/inference/NAME/`, and tables to the log.
    Images that cannot be read are named in a warning and in `metrics.json` ("skipped_images"), and their ground truth
    is left out.

    Returns:
        {data set: {"metrics": ..., "thresholds": ...}}, the contents of those files, on every process.

    Raises:
        InputError: a data set cannot be used, none of its images can be read, or another run writes into `OUTPUT_DIR`.
    """
    with output_dir_claimed(cfg):
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
    report_test_data(cfg, dataset)
    found = detect(detector, loader, build_device(cfg), convention=build_convention(cfg))
    if found is None:
        return None
    _report_unreadable(name, found.unreadable, len(dataset))
    results = to_coco_results(found.detections, dataset.category_ids)
    outcome = score_results(cfg, dataset, results, list(found.unreadable))
    folder = Path(cfg.OUTPUT_DIR) / "inference" / name
    for file, content in (("bbox", results), *outcome.items()):
        write_json(folder / f"{file}.json", content)
    _write_result_files(cfg, dataset, found.detections, folder)
    tables = metrics_table(outcome["metrics"]), thresholds_table(outcome["thresholds"])
    logger.info("%s\n\n%s\n\n%s\nwritten to %s", name, *tables, folder)
    for note in outcome["metrics"]["notes"]:
        logger.warning("%s: %s", name, note)
    if found.unreadable:
        logger.warning("%s: these figures are without %d unreadable images", name, len(found.unreadable))
    return outcome


def _write_result_files(
    cfg: CfgNode, dataset: DetectionDataset, detections: Mapping[ImageId, Detections], folder: Path
) -> None:
    """The files of `TEST.RESULT_FORMATS`."""
    import_modules(cfg.IMPORTS)
    writers = [lookup(RESULT_FORMATS, name, "TEST.RESULT_FORMATS") for name in cfg.TEST.RESULT_FORMATS]
    if not writers:
        return
    names = dict(zip(dataset.annotations.image_ids, dataset.annotations.file_names, strict=True))
    pairs = ((names[image_id], found) for image_id, found in detections.items())
    entries = result_entries(pairs, dataset.class_names, cfg.TEST.RESULT_MIN_SCORE)
    for write in writers:
        get_logger(__name__).info("%d detections written to %s", len(entries), write(entries, folder))


class Validation:
    """Evaluates models on `DATASETS.VAL`, which is read only once: `Validation(cfg, class_names)(model)`.

    Like `evaluate`, except that `TEST.BBOX_AUG` is not applied and nothing is written. With `TILING`, losses are
    means over the tiles.

    Raises:
        InputError: a data set cannot be used.
    """

    def __init__(self, cfg: CfgNode, class_names: Sequence[str]) -> None:
        self._cfg = cfg
        transform = Transform([]) if is_tiled(cfg) else None
        self._loaders = {name: build_test_loader(cfg, name, class_names, transform) for name in cfg.DATASETS.VAL}
        # Detections are of images, losses are of what the model sees.
        has_tile_losses = is_tiled(cfg) and cfg.SOLVER.VALIDATION.LOSS
        of_tiles = self._loaders if has_tile_losses else {}
        self._tile_loaders = {name: build_tile_loader(cfg, loader.dataset) for name, loader in of_tiles.items()}
        for loader in self._loaders.values():
            report_test_data(cfg, loader.dataset)
        # The unreadable images last warned about, so that a validation does not repeat the warnings of the one before.
        self._reported: dict[str, dict[ImageId, str]] = {name: {} for name in self._loaders}
        self._has_noted: dict[str, list[str]] = {}

    def __call__(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """{data set: {"figures", "thresholds"}} on every process.

        Figures are those of "bbox" in `metrics.json` and, with `SOLVER.VALIDATION.LOSS`, each loss by name and their
        sum "loss", as means of `image_losses` over the images. A data set that cannot be evaluated (the weights have
        diverged, no image can be read) is named in a warning and has {} and None.
        """
        return distributed.broadcast_object({name: self._outcome(name, model) for name in self._loaders})

    def _outcome(self, name: str, model: nn.Module) -> dict[str, Any] | None:
        cfg, loader = self._cfg, self._loaders[name]
        tiles = self._tile_loaders.get(name)
        detector, _ = build_detector(cfg, model, augment=False)
        with_losses = cfg.SOLVER.VALIDATION.LOSS and tiles is None
        found = detect(detector, loader, build_device(cfg), build_convention(cfg), with_losses)
        tile_losses = find_losses(model, tiles, build_device(cfg)) if tiles else None
        if found is None:
            return None
        # An error here would leave the other processes waiting, and end a training that is worth more than one figure.
        try:
            if found.unreadable != self._reported[name]:
                _report_unreadable(name, found.unreadable, len(loader.dataset))
                self._reported[name] = found.unreadable
            results = to_coco_results(found.detections, loader.dataset.category_ids)
            outcome = score_results(cfg, loader.dataset, results, list(found.unreadable))
        except InputError as error:
            get_logger(__name__).warning("no validation on %s: %s", name, error)
            return {"figures": {}, "thresholds": None}
        if not self._has_noted.get(name):  # the model has other detections each time, the data set the same objects
            self._has_noted[name] = outcome["metrics"]["notes"]
            for note in self._has_noted[name]:
                get_logger(__name__).warning("%s: %s", name, note)
        figures = {**outcome["metrics"]["bbox"], **mean_losses(tile_losses or found.losses)}
        return {"figures": figures, "thresholds": outcome["thresholds"]}


def _check_num_classes(cfg: CfgNode, model: nn.Module, dataset: DetectionDataset) -> None:
    """A model that does not know the names of its classes takes those of the data set, so their numbers must agree."""
    count = len(dataset.class_names)
    if not model.class_names and num_classes(cfg) != count:
        raise InputError(
            f"data set {shown(dataset.name)} has {count} classes, but the model has {num_classes(cfg)}, which its "
            "weights do not name: test it on a data set with the classes that it was trained on"
        )


def _report_unreadable(name: str, unreadable: dict[ImageId, str], num_images: int) -> None:
    """Warn of the images that cannot be read; an `InputError` if there are no others."""
    if not unreadable:
        return
    if len(unreadable) == num_images:
        reason = next(iter(unreadable.values()))
        raise InputError(f"data set {shown(name)}: none of its {num_images} images can be read; the first: {reason}")
    logger = get_logger(__name__)
    for reason in unreadable.values():
        logger.warning("unreadable image left out: %s", reason)
    message = "%s: %d of %d images cannot be read; they and their boxes are left out"
    logger.warning(message, name, len(unreadable), num_images)


def score_results(
    cfg: CfgNode,
    dataset: DetectionDataset,
    results: list[dict[str, Any]],
    skipped_images: Sequence[ImageId] = (),
    of_this_model: bool = True,
) -> dict[str, Any]:
    """Metrics and thresholds (by the rules of `TEST.THRESHOLD_*`) of detections, without a model.

    Args:
        dataset: with ground truth.
        results: COCO result entries with the category ids of `dataset`.
        skipped_images: ids of images to leave out with their ground truth.
        of_this_model: the model of `cfg` found them, so its limits hold.

    Returns:
        {"metrics", "thresholds"}, the contents of `metrics.json` and `thresholds.json`; "notes" in the former says what
        limits on the number of detections have kept from the figures.

    Raises:
        InputError: a result names an image or category that `dataset` does not have.
    """
    annotations = without_images(dataset.annotations, skipped_images)
    iou = cfg.TEST.THRESHOLD_IOU
    matches = match_detections(annotations, results, dataset.category_ids, [iou])
    max_dets, limits = cfg.TEST.MAX_DETS, detection_limits(cfg) if of_this_model else {}
    metrics = coco_metrics(annotations, results, dataset.class_names, dataset.category_ids, max_dets)
    metrics |= {"num_images": len(dataset) - len(skipped_images), "skipped_images": list(skipped_images)}
    metrics |= {"max_dets": max_dets, "notes": limit_notes(matches, max_dets, limits)}
    beta, rule = cfg.TEST.THRESHOLD_BETA, cfg.TEST.THRESHOLD_RULE
    thresholds = fmeasure_thresholds(matches, dataset.class_names, iou, beta, rule, max_dets)
    return {"metrics": metrics, "thresholds": thresholds}


def detection_limits(cfg: CfgNode) -> dict[str, int]:
    """The limits on what the model finds in an image, by their keys; 0 for none. {} with tiles, which they hold for."""
    limits = {}
    if is_tiled(cfg):
        return limits
    if cfg.MODEL.RPN_ONLY or cfg.TEST.BBOX_AUG.ENABLED:
        limits["TEST.DETECTIONS_PER_IMG"] = cfg.TEST.DETECTIONS_PER_IMG
    # Candidates per level, so that the levels together bound what is found.
    if (stage := dense_name(cfg)) == "ATSS":
        limits["MODEL.ATSS.PRE_NMS_TOP_N"] = cfg.MODEL.ATSS.PRE_NMS_TOP_N * len(cfg.MODEL.ATSS.ANCHOR_STRIDES)
    elif stage == "RETINANET":
        levels = len(cfg.MODEL.RETINANET.ANCHOR_STRIDES)
        limits["MODEL.RETINANET.PRE_NMS_TOP_N"] = cfg.MODEL.RETINANET.PRE_NMS_TOP_N * levels
    elif stage == "FCOS":
        limits["MODEL.FCOS.PRE_NMS_TOP_N"] = cfg.MODEL.FCOS.PRE_NMS_TOP_N * len(cfg.MODEL.FCOS.FPN_STRIDES)
    elif not stage:
        limits["MODEL.RPN.POST_NMS_TOP_N_TEST"] = cfg.MODEL.RPN.POST_NMS_TOP_N_TEST * len(cfg.MODEL.RPN.ANCHOR_STRIDE)
    if not cfg.MODEL.RPN_ONLY:
        limits["MODEL.ROI_HEADS.DETECTIONS_PER_IMG"] = cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG
        limits["MODEL.RPN.FPN_POST_NMS_TOP_N_TEST"] = cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST
    return limits
