"""cfg -> a model with its initial weights; conventions of weights; batch norm statistics for averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from engine import distributed
from engine.assembly.data import CHANNELS, VALUE_RANGE, build_train_loader
from engine.assembly.device import build_device
from engine.assembly.model import build_model, num_classes
from engine.assembly.tiling import TILING, tiling_conventions
from engine.checkpoint.average import recompute_statistics
from engine.checkpoint.heads import SURGERIES
from engine.checkpoint.image_check import IMAGE_KEYS, check_first_images
from engine.checkpoint.report import LoadReport
from engine.checkpoint.weights import WeightFile, load_weights, read_weights_for
from engine.config.tree import DEFAULTS, leaves
from engine.errors import InputError, listed, shown
from engine.log import get_logger
from engine.registry import lookup, taken_by
from engine.spelling import normal_name

ROUNDING = 1e-3
"""Relative difference of means and deviations that changes no result."""
Surgery = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def load_initial_weights(cfg: CfgNode, model: nn.Module, checks_images: bool = False) -> LoadReport:
    """Load `MODEL.WEIGHT` into `model`, changed by `MODEL.WEIGHT_SURGERY` if it is set.

    With `checks_images`, the first call of `model` checks whether its images are like those that the weights know.

    Raises:
        InputError: see `load_weights`.
    """
    file = read_weights_for(model, cfg.MODEL.WEIGHT)
    report = load_weights(model, file, surgery=build_surgery(cfg, model, file.source))
    unmet = {key: value for key, value in unmet_conventions(cfg, file).items() if not _is_rounded(cfg, key, value)}
    unmet.pop(CHANNELS, None)  # `load_weights` has adapted them
    if file.conventions.get(CHANNELS, 3) != cfg.INPUT.CHANNELS:  # other means and deviations belong to other channels
        unmet = {key: value for key, value in unmet.items() if key not in IMAGE_KEYS}
    if unmet:
        get_logger(__name__).warning("%s was trained with %s; consider setting it", file.source, written(unmet))
    if checks_images:
        check_images(cfg, model, model, file)
    return report


def _is_rounded(cfg: CfgNode, key: str, value: Any) -> bool:
    """Whether the key has almost this value, a mean or deviation: 127 / 255 is often written as 0.498."""
    ours = dict(leaves(cfg)).get(key)
    if key not in IMAGE_KEYS or not (isinstance(ours, tuple | list) and isinstance(value, tuple | list)):
        return False
    return len(ours) == len(value) and all(map(partial(math.isclose, rel_tol=ROUNDING), ours, value))


def build_surgery(cfg: CfgNode, model: nn.Module, source: str) -> Surgery | None:
    """`MODEL.WEIGHT_SURGERY` for the weights `source` of `model`, as a function of the tensors; None without."""
    name = cfg.MODEL.WEIGHT_SURGERY
    if not name:
        return None
    operate = lookup(SURGERIES, name, "MODEL.WEIGHT_SURGERY")
    offers = {
        "num_classes": num_classes(cfg, model.class_names),
        "num_anchors": model.rpn.anchor_generator.per_cell if cfg.MODEL.RPN_ONLY else 1,
        "class_names": list(model.class_names),
        "source": source,
    }

    def surgery(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        try:
            changed = operate(tensors, **taken_by(operate, offers))
        except InputError:
            raise
        except Exception as error:  # it may be the user's own
            raise InputError(
                f"MODEL.WEIGHT_SURGERY: {name} fails on {source}: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(changed, Mapping) and all(isinstance(each, Tensor) for each in changed.values())):
            raise InputError(f"MODEL.WEIGHT_SURGERY: {name} must return tensors by name, not {shown(changed)}")
        return dict(changed)

    return surgery


def stored_conventions(cfg: CfgNode) -> dict[str, Any]:
    """What a checkpoint of a training with `cfg` says about its images, by key."""
    conventions = {**tiling_conventions(cfg), **image_settings(cfg)}
    if cfg.INPUT.VALUE_RANGE:
        conventions[VALUE_RANGE] = cfg.INPUT.VALUE_RANGE
    if cfg.INPUT.CHANNELS != 3:
        conventions[CHANNELS] = cfg.INPUT.CHANNELS
    return conventions


def image_settings(cfg: CfgNode) -> dict[str, Any]:
    """The keys of `IMAGE_KEYS` and their values."""
    values = dict(leaves(cfg))
    return {key: values[key] for key in IMAGE_KEYS}


def check_images(cfg: CfgNode, model: nn.Module, watched: nn.Module, file: WeightFile) -> None:
    """Warn when `watched`, a part of `model` that gets the images, gets others than the weights of `file` know."""
    if distributed.is_main():
        settings = image_settings(cfg)
        is_stated = settings == {key: file.conventions.get(key) for key in IMAGE_KEYS}
        check_first_images(watched, model.backbone.body, file.source, settings, is_stated)


def unmet_conventions(cfg: CfgNode, file: WeightFile) -> dict[str, Any]:
    """The conventions of the weights, key and value, that `cfg` does not follow."""
    values = dict(leaves(cfg))
    return {key: value for key, value in file.conventions.items() if values.get(key) != value}


def follow_conventions(cfg: CfgNode, file: WeightFile) -> None:
    """Set the conventions of the weights in `cfg` and log the changes.

    A declared `INPUT.VALUE_RANGE` stays, and so does a `TILING` block with a SIZE, or what else is set of it.

    Raises:
        InputError: the file names a key that does not exist or a value that is not allowed, or was trained with another
            INPUT.CHANNELS.
    """
    unmet = unmet_conventions(cfg, file)
    trained_with = file.conventions.get(CHANNELS, 3 if file.format == "engine" else cfg.INPUT.CHANNELS)
    if trained_with != cfg.INPUT.CHANNELS:  # not set here: as many means and deviations belong to them
        raise InputError(
            f"{file.source} was trained with {CHANNELS} {trained_with}, but the configuration has "
            f"{cfg.INPUT.CHANNELS}; use the configuration of the training"
        )
    if cfg.INPUT.VALUE_RANGE and VALUE_RANGE in unmet:  # the images may be of another sensor than those in training
        message = "%s was trained with %s %s; the declared %s is used"
        get_logger(__name__).warning(message, file.source, VALUE_RANGE, unmet.pop(VALUE_RANGE), cfg.INPUT.VALUE_RANGE)
    if own := _declared_tiling(cfg, unmet):
        message = "%s was trained with %s; the declared %s is used"
        theirs = {key: unmet.pop(key) for key in own}
        get_logger(__name__).warning(message, file.source, written(theirs), written(own))
    if not unmet:
        return
    get_logger(__name__).warning("%s needs %s: set for this run", file.source, written(unmet))
    was_frozen = cfg.is_frozen()
    cfg.defrost()
    try:
        cfg.merge_from_list([item for pair in unmet.items() for item in pair])
        if was_frozen:
            cfg.freeze()
    except InputError as error:
        reasons = (line.partition(": ")[2] for line in str(error).splitlines())  # without "command line"
        raise InputError(f"{file.source}: its conventions cannot be followed: {'; '.join(reasons)}") from None


def _declared_tiling(cfg: CfgNode, unmet: dict[str, Any]) -> dict[str, Any]:
    """The keys of `unmet` that the `TILING` block of `cfg` declares, and their values there."""
    values, defaults = dict(leaves(cfg)), dict(leaves(DEFAULTS))
    keys = [key for key in unmet if key.startswith(TILING) and key in values]
    return {key: values[key] for key in keys if cfg.TILING.SIZE or values[key] != defaults[key]}


def with_batch_norm_recomputed(cfg: CfgNode, state: dict[str, Any], num_images: int) -> dict[str, Any]:
    """`state`, a checkpoint of ours, with the batch norm statistics of its weights on images of `DATASETS.TRAIN`.

    They are at least `num_images` images (whole batches), augmented as in training.

    Raises:
        InputError: the configuration describes another model or other classes, or a model without trainable batch norm.
    """
    file = WeightFile(
        state["model"],
        state["class_names"] or None,
        None,
        "the average",
        "engine",
        state.get("conventions") or {},
        state.get("norm_eps"),
    )
    cfg = cfg.clone()
    cfg.defrost()
    follow_conventions(cfg, file)
    cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.STEPS_EPOCH = 0, ()
    cfg.SOLVER.MAX_ITER = -(-num_images // cfg.SOLVER.IMS_PER_BATCH)
    cfg.SEED = max(cfg.SEED, 0)
    loader = build_train_loader(cfg)
    names = loader.dataset.class_names
    if file.class_names and [*map(normal_name, file.class_names)] != [*map(normal_name, names)]:
        raise InputError(
            f"the checkpoints have the classes {listed(file.class_names)}, the training set has {listed(names)}"
        )
    model = build_model(cfg, names)
    report = load_weights(model, file)
    if not report.ok:
        raise InputError(f"the configuration describes another model than the checkpoints: {report.summary()}")
    torch.manual_seed(cfg.SEED)
    device = build_device(cfg)
    batches = (batch.to(device) for batch in loader)
    statistics = recompute_statistics(model, ((batch.images, batch.targets) for batch in batches))
    if not statistics:
        raise InputError(
            "this model has no batch norm that learns statistics (MODEL.RESNETS.NORM: BN or SyncBN); leave out "
            "--recompute-bn"
        )
    return {**state, "model": {**state["model"], **statistics}}


def written(conventions: dict[str, Any]) -> str:
    """Keys and values in words."""
    return ", ".join(f"{key} {value}" for key, value in conventions.items())
