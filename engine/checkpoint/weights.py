"""Loads weights of any known format into a model, matched by exact name and shape, with a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import distributed
from engine.checkpoint import foreign, io, sources, timm_hub
from engine.checkpoint.foreign.atss import strip_wrappers
from engine.checkpoint.foreign.rename import CLASSIFIER, COUNTER, rgb_conventions
from engine.checkpoint.heads import heads_of, take_classes
from engine.checkpoint.io import FORMAT
from engine.checkpoint.norm_eps import eps_notes, with_model_eps
from engine.checkpoint.report import LoadReport, Reshaped
from engine.checkpoint.restricted_pickle import brief
from engine.checkpoint.stem import stem_of, with_adapted_stem
from engine.errors import InputError, listed
from engine.log import get_logger
from engine.runtime.card import ModelCard
from engine.runtime.card_file import is_exported, read_card, write_card
from engine.spelling import normal_name

Tensors = dict[str, Tensor]

_RESET = "left as initialised"
IMAGENET_HEADS = (CLASSIFIER, "fc.", "fc1000.", "_conv_head.", "_bn1.", "_fc.")
"""Layers of bodies trained on ImageNet; no detector has them."""


@dataclass(frozen=True)
class WeightFile:
    """A weights file under our names.

    `conventions` are configuration keys and the values that the weights were trained with, as far as the file or its
    format gives them.
    """

    tensors: Tensors  # parameters and buffers by name, on the CPU
    class_names: list[str] | None  # foreground classes in the order of the labels, if the file has them
    thresholds: dict[str, Any] | None  # the `thresholds.json` object, if the file has one
    source: str  # the URI or path as given
    format: str  # "engine", a name in `foreign.FORMATS`, or "unknown"
    conventions: dict[str, Any] = field(default_factory=dict)
    norm_eps: dict[str, float] | None = None  # of its norm layers by name, see `norm_eps.with_model_eps`


def read_weights(uri: str | Path, file_format: str = "auto") -> WeightFile:
    """Read weights of any known format from a path or URI (see `sources.resolve`).

    `file_format` is a name in `foreign.FORMATS` for a file that is not ours, or "auto" to recognise it by the names.

    Raises:
        InputError: the file is missing or damaged, asks for code, has no tensors, or is not of that format.
    """
    path = sources.resolve(uri)
    if is_exported(path):
        raise InputError(
            f"{uri}: an exported model, which can be tested but not loaded into a model; name the checkpoint "
            "that it was made from"
        )
    content = io.load(path, mmap=True)
    items = _state_dict(content).items()
    tensors = {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path}: has no weights; its keys: {', '.join(map(brief, list(content)[:5])) or 'none'}")
    if content.get("format") != FORMAT and str(uri).startswith(sources.TIMM):
        file = _read_foreign(path, content, tensors, str(uri), "timm")
        return replace(file, conventions=timm_hub.conventions(str(uri)))
    if content.get("format") != FORMAT:
        return _read_foreign(path, content, tensors, str(uri), file_format)
    return WeightFile(
        tensors={strip_wrappers(name): value for name, value in tensors.items()},
        class_names=list(content.get("class_names") or []) or None,
        thresholds=content.get("thresholds"),
        source=str(uri),
        format="engine",
        conventions=content.get("conventions") or {},
        norm_eps=content.get("norm_eps"),
    )


def read_weights_for(model: nn.Module, uri: str | Path) -> WeightFile:
    """`read_weights` for a model whose body may know the format of its package's files and what images they expect.

    See `bodies.Body.weights_format`.

    Raises:
        InputError: see `read_weights`.
    """
    body = _body_of_package(model)
    if body is None:
        return read_weights(uri)
    file = read_weights(uri, body.weights_format)
    if file.format != body.weights_format or file.conventions:
        return file
    return replace(file, conventions=rgb_conventions(body.pixel_mean, body.pixel_std))


def _body_of_package(model: nn.Module) -> nn.Module | None:
    """The body of `model`, if it has the names of another package."""
    return next((each for each in model.modules() if isinstance(getattr(each, "weights_format", None), str)), None)


def load_weights(
    model: nn.Module,
    weights: str | Path | WeightFile,
    class_names: Sequence[str] | None = None,
    surgery: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> LoadReport:
    """Load the weights of a file into a model, by exact name and shape, and log the outcome.

    Only the first convolution of the body may differ: that of three channels is adapted to another number of them, see
    `engine.checkpoint.stem`.

    Args:
        model: may be wrapped (DistributedDataParallel, torch.compile).
        weights: anything `sources.resolve` understands, or what `read_weights` returned.
        class_names: the model's foreground classes, by default `model.class_names`. If file and model both have class
            names, a classification head takes the rows of the common classes, in the model's order.
        surgery: applied to the tensors first, for example `heads.keep_first_classes` with its numbers bound; rows of
            classes are then taken by their order, not by name.

    Raises:
        InputError: the file cannot be read, nothing in it matches the model, or it was trained with other channels that
            cannot be adapted. The model is unchanged then.
    """
    file = weights if isinstance(weights, WeightFile) else read_weights_for(model, weights)
    if surgery:
        file = replace(file, tensors=surgery(dict(file.tensors)), class_names=None)
    names = class_names or getattr(model, "class_names", None) or None
    targets = {strip_wrappers(name): value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    body = _body_of_package(model)
    tensors = foreign.placed(file.tensors, targets, body.weights_format if body else file.format)
    tensors, adapted = with_adapted_stem(place_deformable(tensors, targets), targets, file.source)
    tensors = with_model_eps(tensors, model, file.norm_eps)
    classes = (each and [*map(normal_name, each)] for each in (file.class_names, names))
    values, report = values_by_name(tensors, targets, *classes)
    report.source, report.format = file.source, file.format
    if not report.matched:
        raise InputError(_nothing_matches(file, report, targets))
    fixed = {strip_wrappers(name) for name, each in model.named_parameters() if not each.requires_grad}
    if adapted and stem_of(targets) in fixed:
        adapted[0] += "; it stays fixed: MODEL.BACKBONE.FREEZE_CONV_BODY_AT 0 trains it"
    report.notes += adapted + _notes(model, values, file)
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)
    _log(report)
    return report


def check_storable(path: str | Path) -> dict[str, Any] | ModelCard:
    """The content of a checkpoint, or the card of an exported file, if it is ours and local.

    Thresholds can be stored in it then.

    Raises:
        InputError: not a local file, or not our format.
    """
    if "://" in str(path):
        raise InputError(f"{path}: thresholds can only be stored in a local checkpoint; download it first")
    if is_exported(path):
        return read_card(Path(path))
    content = io.load(path)
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path}: thresholds can only be stored in a local checkpoint of this engine; convert it first "
            "(tools/convert_weights.py), or read them from thresholds.json"
        )
    return content


def store_thresholds(path: str | Path, thresholds: dict[str, Any]) -> None:
    """Write the `thresholds.json` object into a checkpoint of ours, atomically; its thresholds into an exported file.

    A class for which this test had no objects keeps the threshold that the file has for it, which is logged.

    Raises:
        InputError: see `check_storable`, or the file cannot be written.
    """
    content = check_storable(path)
    if isinstance(content, ModelCard):
        old = {name: {"threshold": limit} for name, limit in content.thresholds.items()}
    else:
        old = (content.get("thresholds") or {}).get("classes", {})
    kept = {
        name: old[name]
        for name, entry in thresholds["classes"].items()
        if not entry.get("num_gt") and old.get(name, {}).get("threshold") is not None
    }
    if kept:
        get_logger(__name__).info("%s keeps its thresholds of classes without objects here: %s", path, listed(kept))
    classes = {**thresholds["classes"], **kept}
    if isinstance(content, ModelCard):
        limits = {name: entry["threshold"] for name, entry in classes.items() if entry["threshold"] is not None}
        write_card(Path(path), replace(content, thresholds=limits))
    else:
        io.save(path, {**content, "thresholds": {**thresholds, "classes": classes}})


def values_by_name(
    tensors: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    file_classes: Sequence[str] | None = None,
    model_classes: Sequence[str] | None = None,
) -> tuple[Tensors, LoadReport]:
    """The new value of each parameter, and the report. Nothing is changed.

    A head with other classes takes the rows of the common classes. A head of another shape without known classes keeps
    its values. If at least one row of a head is taken, it counts both as matched and as reshaped.
    """
    report = LoadReport()
    values: Tensors = {}
    both = file_classes is not None and model_classes is not None
    other_heads = heads_of(targets) if both and list(file_classes) != list(model_classes) else {}
    for name, target in targets.items():
        if name not in tensors:
            if not name.endswith(COUNTER):  # batch counters do not affect the results, and old files have none
                report.missing.append(name)
            continue
        tensor = tensors[name]
        if name in other_heads and (taken := take_classes(name, tensor, target, file_classes, model_classes)):
            value, labels = taken
            outcome = f"{len(labels)} of {len(model_classes)} classes by name, others {_RESET}"
            report.reshaped.append(Reshaped(name, tensor.shape, target.shape, outcome))
            if labels:
                values[name] = value
        elif tensor.shape == target.shape:
            values[name] = tensor
        else:
            report.reshaped.append(Reshaped(name, tensor.shape, target.shape, _RESET))
    report.matched = list(values)
    for name in sorted(tensors.keys() - targets.keys()):
        known = name.startswith(IMAGENET_HEADS) or name.endswith(COUNTER)
        (report.ignored if known else report.unexpected).append(name)
    return values, report


def place_deformable(tensors: Tensors, target_names: Iterable[str]) -> Tensors:
    """Rename `X.weight` of a plain convolution to `X.conv.weight` if the one of the model is deformable."""
    target_names = set(target_names)

    def place(name: str) -> str:
        layer, _, kind = name.rpartition(".")
        moved = f"{layer}.conv.{kind}"
        return moved if name not in target_names and moved in target_names else name

    return {place(name): tensor for name, tensor in tensors.items()}


def _read_foreign(path: Path, content: dict[str, Any], tensors: Tensors, source: str, file_format: str) -> WeightFile:
    name = foreign.format_of(tensors, file_format)
    try:
        translated, _ = foreign.translate(tensors, name)
        return WeightFile(
            translated,
            class_names=foreign.class_names(content, translated, name),
            thresholds=None,
            source=source,
            format=name,
            conventions=foreign.conventions(translated, name),
            norm_eps=foreign.norm_eps(translated, name),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a format looks into the file without checking it, and may be the user's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else reason
        raise InputError(f"{path}: cannot be read as weights of {name} ({brief(reason)})") from error


def _state_dict(content: dict[str, Any]) -> dict[str, Any]:
    """The state dict in a checkpoint of a trainer, in `blobs` of Detectron, or the dictionary itself."""
    for key in ("model", "blobs", "state_dict"):
        if isinstance(content.get(key), dict):
            return content[key]
    return content


def _nothing_matches(file: WeightFile, report: LoadReport, targets: Tensors) -> str:
    start, ours = f"nothing in {file.source} matches this model", next(iter(targets), "no parameters")
    if report.reshaped:
        return f"{start}: same names but other shapes, such as {report.reshaped[0]}"
    theirs = brief(next(iter(file.tensors)))
    return f"{start}: it has {theirs}, ..., the model {ours}, ...; use weights of this architecture"


def _notes(model: nn.Module, values: Tensors, file: WeightFile) -> list[str]:
    notes = eps_notes(values, model, file.norm_eps) if file.format == "engine" and file.norm_eps is not None else []
    broken = [name for name, value in values.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        notes.append(f"{len(broken)} tensors hold NaN or infinity, first {broken[0]}: training diverged")
    if file.format == "torchvision":
        for name, module in model.named_modules():
            if name.endswith("backbone.body.layer2.0") and hasattr(module, "conv3") and module.conv1.stride[0] > 1:
                notes.append("torchvision has the stride in the 3x3 convolution: set MODEL.RESNETS.STRIDE_IN_1X1 False")
    return notes


def _log(report: LoadReport) -> None:
    if not distributed.is_main():
        return
    logger = get_logger("checkpoint")
    if report.ok or report.backbone_only:
        logger.info("%s", report.summary())
        for note in report.notes:
            logger.warning("%s", note)
    else:
        logger.warning("%s\n%s", report.summary(), report.table())
