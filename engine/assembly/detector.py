"""cfg -> trained model, Predictor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from engine.assembly.convention import build_convention
from engine.assembly.data import build_test_transform, test_batch_size
from engine.assembly.device import build_device, named_devices, warn_without_gpu
from engine.assembly.exported import open_exported
from engine.assembly.model import build_model, num_classes
from engine.assembly.process import prepare
from engine.assembly.tiling import build_fill, build_tile_merge, build_tiling, is_tiled
from engine.assembly.weights import check_images, follow_conventions
from engine.checkpoint.weights import WeightFile, load_weights, read_weights
from engine.config import load_config
from engine.data.reading import Reading
from engine.data.transforms import Normalize, Transform
from engine.device import explaining_out_of_memory
from engine.errors import InputError
from engine.inference.augment import AugmentedDetector, View, unmerged
from engine.inference.exported import ExportedDetector
from engine.inference.predictor import LESS_MEMORY, ImagePredictor
from engine.inference.replicas import Replicas
from engine.inference.tiled import TiledDetector
from engine.layers.voting import MERGERS, Merged
from engine.log import get_logger
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.selection import Selection
from engine.registry import import_modules, lookup
from engine.runtime.card_file import is_exported

DEFAULT_THRESHOLD = 0.3
"""For a class without a stored threshold."""
LARGE_SCALE = 800
"""From this short side on, pixels, TEST.BBOX_AUG.MAX_SIZE limits the long one, not INPUT.MAX_SIZE_TEST (reference)."""


def build_trained_model(cfg: CfgNode) -> GeneralizedRCNN | ExportedDetector:
    """The model of `cfg` with the weights and class names of `MODEL.WEIGHT`, in a process made ready for a run.

    An exported file takes the place of a model, see `assembly.exported`.

    `cfg` is made to follow the conventions stored with the weights: those of the project that they were converted from,
    the normalisation of the images, the range of values of those of more than 8 bits, and the tiles of the training.
    """
    prepare(cfg)
    return _read_trained(cfg, cfg.MODEL.WEIGHT)[0]


def _read_trained(cfg: CfgNode, weights: str) -> tuple[GeneralizedRCNN | ExportedDetector, WeightFile]:
    if is_exported(weights):
        return open_exported(cfg, weights)
    file = read_weights(weights)
    follow_conventions(cfg, file)
    return load_trained(cfg, file), file


def load_trained(cfg: CfgNode, file: WeightFile) -> GeneralizedRCNN:
    """The model of `cfg`, which follows the conventions of `file`, with its weights and in evaluation mode."""
    with explaining_out_of_memory(LESS_MEMORY):
        model = build_model(cfg, file.class_names or ())
        report = load_weights(model, file)
    if report.unset:
        get_logger(__name__).warning(
            "%d tensors of the model are not in %s and stay as initialised, first %s: what it detects means little; "
            "use the configuration and the weights of one training",
            len(report.unset),
            file.source,
            report.unset[0],
        )
    check_images(cfg, model, model.backbone, file)
    return model.eval()


def build_detector(
    cfg: CfgNode, model: GeneralizedRCNN | ExportedDetector, augment: bool = True
) -> tuple[nn.Module, Transform]:
    """`model` as the configuration tests it, and the transform of the test images that it takes.

    On tiles if `TILING` says so; augmented (each tile) if `TEST.BBOX_AUG` does, unless `augment` is False. An exported
    file does all that it does itself.
    """
    if isinstance(model, ExportedDetector):
        return model, Transform([])
    is_augmented = augment and cfg.TEST.BBOX_AUG.ENABLED
    if is_tiled(cfg):
        return build_tiled(cfg, model, is_augmented), Transform([])
    if is_augmented:
        return build_augmented(cfg, model), Transform([])
    return model, build_test_transform(cfg)


def build_tiled(cfg: CfgNode, model: GeneralizedRCNN, is_augmented: bool) -> TiledDetector:
    """`model` on the tiles of images as read. TEST.IMS_PER_BATCH and the limits on detections are those of tiles."""
    return TiledDetector(
        build_augmented(cfg, model) if is_augmented else build_plain(cfg, model),
        build_tiling(cfg),
        build_tile_merge(cfg, model.selection.score_thresh),
        build_fill(cfg),
        test_batch_size(cfg),
    )


def build_plain(cfg: CfgNode, model: GeneralizedRCNN) -> AugmentedDetector:
    """`model` on images as read, which it sees once, at the scale of `INPUT`; its detections are not changed."""
    return AugmentedDetector(
        model,
        [View(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)],
        build_normalize(cfg).pixels,
        unmerged,
        max_detections=0,
        convention=build_convention(cfg),
    )


def build_normalize(cfg: CfgNode) -> Normalize:
    return Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, cfg.INPUT.TO_BGR255)


def build_augmented(cfg: CfgNode, model: GeneralizedRCNN) -> AugmentedDetector:
    """`model` with the test-time augmentation of `TEST.BBOX_AUG`, on images as read.

    As in the reference, with VOTE each pass is suppressed and cut before its detections are merged by MERGE_TYPE;
    without it, all candidates are suppressed together, and neither SCALE_RANGES nor the smaller limit of small scales
    is used.
    """
    if cfg.TEST.BBOX_AUG.SCALE_RANGES and not cfg.TEST.BBOX_AUG.VOTE:
        get_logger(__name__).warning("TEST.BBOX_AUG.SCALE_RANGES is only used with TEST.BBOX_AUG.VOTE: True")
    return AugmentedDetector(
        model,
        build_views(cfg),
        build_normalize(cfg).pixels,
        build_merge(cfg, model.selection),
        max_detections=cfg.TEST.DETECTIONS_PER_IMG,
        suppress_first=cfg.TEST.BBOX_AUG.VOTE,
        convention=build_convention(cfg),
    )


def build_views(cfg: CfgNode) -> list[View]:
    """The plain scale of `INPUT` and those of `TEST.BBOX_AUG.SCALES`."""
    ranges = cfg.TEST.BBOX_AUG.SCALE_RANGES if cfg.TEST.BBOX_AUG.VOTE else ()
    views = [View(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.TEST.BBOX_AUG.H_FLIP)]
    for scale, size_range in zip_longest(cfg.TEST.BBOX_AUG.SCALES, ranges):
        is_small = cfg.TEST.BBOX_AUG.VOTE and scale < LARGE_SCALE
        max_size = cfg.INPUT.MAX_SIZE_TEST if is_small else cfg.TEST.BBOX_AUG.MAX_SIZE
        views.append(View(scale, max_size, cfg.TEST.BBOX_AUG.SCALE_H_FLIP, size_range))
    return views


def build_merge(cfg: CfgNode, selection: Selection) -> partial[Merged]:
    """The rule of `TEST.BBOX_AUG.MERGE_TYPE` with its parameters bound; without VOTE the NMS of `selection`."""
    name = cfg.TEST.BBOX_AUG.MERGE_TYPE if cfg.TEST.BBOX_AUG.VOTE else "nms"
    parameters = {
        "vote": {"iou_thresh": cfg.TEST.BBOX_AUG.VOTE_TH},
        "soft-vote": {"iou_thresh": cfg.TEST.BBOX_AUG.VOTE_TH, "score_thresh": selection.score_thresh},
        "nms": {"iou_thresh": selection.nms_thresh},
    }
    return partial(lookup(MERGERS, name, "TEST.BBOX_AUG.MERGE_TYPE"), **parameters.get(name, {}))


class Predictor(ImagePredictor):
    """`Predictor(config, weights)(image) -> Detections`.

    The class names, score thresholds, normalisation, range of values and tiles stored in the checkpoint are used.

    Args:
        config: a path of a YAML file, or a configuration.
        weights: any value that `MODEL.WEIGHT` takes, or an exported file.
        threshold: one score threshold for all classes instead of the stored ones.
        devices: names such as "cuda:0" and "cuda:1", each of which gets a copy of the model, instead of `MODEL.DEVICE`.
            The batches of a list, of `predict_iter` and of an `AsyncPredictor` are spread between them.

    Raises:
        InputError: the configuration, the weights, the threshold or a device cannot be used.

    Attributes:
        class_names: names of labels 0..K-1 ("class 1", ... if the checkpoint has none).
        stored_thresholds: score threshold by class name, for the classes that have one in the checkpoint.
    """

    def __init__(
        self,
        config: CfgNode | str | Path,
        weights: str | Path,
        threshold: float | None = None,
        devices: Sequence[str] | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise InputError(f"the score threshold must be between 0 and 1, not {threshold}")
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        copies_on = [] if devices is None else named_devices(devices)
        if len(copies_on) > 1 and is_exported(weights):
            raise InputError(f"{weights}: an exported file runs on one device; name one of devices")
        if copies_on:
            cfg.defrost()
            cfg.MODEL.DEVICE = str(copies_on[0])
            cfg.freeze()
        warn_without_gpu(cfg)
        import_modules(cfg.IMPORTS)  # the weights may be of a format of the user's own
        trained, file = _read_trained(cfg, str(weights))
        self.stored_thresholds = usable_thresholds(file.thresholds)
        model, transform = build_detector(cfg, trained)
        super().__init__(
            Replicas(model, copies_on) if len(copies_on) > 1 else model,
            transform,
            torch.device("cpu") if len(copies_on) > 1 else build_device(cfg),  # where batches come together
            file.class_names or [f"class {k + 1}" for k in range(num_classes(cfg))],
            self.stored_thresholds if threshold is None else {},
            DEFAULT_THRESHOLD if threshold is None else threshold,
            cfg.DATALOADER.SIZE_DIVISIBILITY,
            build_convention(cfg),
            1 if is_tiled(cfg) else cfg.TEST.IMS_PER_BATCH,
            Reading(cfg.INPUT.VALUE_RANGE or None, cfg.INPUT.CHANNELS, cfg.INPUT.ORIENTATION),
        )


def usable_thresholds(thresholds: dict[str, Any] | None) -> dict[str, float]:
    """Score threshold by class name from the object of `thresholds.json`; classes that have none are left out."""
    classes = (thresholds or {}).get("classes", {})
    return {name: entry["threshold"] for name, entry in classes.items() if entry["threshold"] is not None}
