"""From a folder of data to a configuration for it and for this machine."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from yacs.config import CfgNode

from engine.analysis import recipe
from engine.analysis.data_facts import data_facts, pixel_facts
from engine.analysis.timing import StepTime, noise, time_step
from engine.assembly.data import build_dataset
from engine.assembly.device import build_device
from engine.assembly.doctor import check_data
from engine.assembly.model import build_model
from engine.assembly.new_settings import (
    LARGE_BASE,
    PACKAGED_BASE,
    PROBE_BATCH,
    PROBE_SIZE,
    SMALL_BASE,
    Case,
    Request,
    choose_settings,
)
from engine.assembly.solver import build_optimizer
from engine.assembly.training import build_precision
from engine.checkpoint.obtainable import why_not_obtainable
from engine.config import load_config
from engine.config.commented import Setting, commented_yaml
from engine.data.classes import background_rows
from engine.data.declare import TRAIN, VAL, Declared, declare_sets
from engine.data.doctor import Finding
from engine.data.formats.find_sets import find_sets
from engine.device import num_cpus
from engine.errors import InputError, listed
from engine.files import expanded, removed_on_failure, write_text
from engine.shipped import command_line, shipped

FEW = 10
"""Boxes from which a class can be learnt, barely."""
MOST_SECONDS_OF_LOOKING = 20
"""A check that would take longer opens no images."""


@dataclass(frozen=True)
class NewConfig:
    """The outcome.

    Attributes:
        notes: a line for each thing worth knowing.
        command: that trains.
        findings: what `tools/check_dataset.py` finds with the new configuration, except notes.
    """

    notes: list[str]
    command: str
    findings: list[Finding]

    @property
    def has_errors(self) -> bool:
        return any(each.severity == "error" for each in self.findings)


def new_config(request: Request) -> NewConfig:
    """Write a configuration for a data set, and COCO files beside it where the data is not split or not usable as is.

    Raises:
        InputError: the data or a path cannot be used.
    """
    for path in (request.data, *request.images, request.output):
        text = str(path.absolute())
        if expanded(text) != text:
            raise InputError(f"{text}: a configuration would replace the variable in this path; rename it")
    name = re.sub(r"[^\w-]+", "_", request.output.stem).strip("_") or "data"
    folder = request.output.absolute().parent / f"{request.output.stem}_data"
    found = find_sets(request.data, request.images)
    with removed_on_failure(folder):
        declared = declare_sets(found, folder, request.val_share, request.seed)
        case, settings, command = _written(request, name, declared)
    is_long = (case.facts.num_images + case.num_val) * case.pixels.seconds_to_read > MOST_SECONDS_OF_LOOKING
    findings = check_data(load_config(request.output, []), quick=is_long).findings
    notes = [*_summary(case), *declared.notes, *_warnings(case, settings)]
    return NewConfig(notes, command, [each for each in findings if each.severity != "note"])


def _written(request: Request, name: str, declared: Declared) -> tuple[Case, list[Setting], str]:
    """Write the configuration; what it was chosen for, its settings, and the command that trains."""
    device, base, why_base = _body(request)
    cfg = _base_config(base, device, declared, name)
    dataset = build_dataset(cfg, f"{name}_{TRAIN}")
    num_val = len(build_dataset(cfg, f"{name}_{VAL}", dataset.class_names))
    facts = data_facts(dataset)
    step = _probe(cfg, dataset.class_names) if request.minutes or device == "cpu" else None
    case = Case(request, base, cfg, dataset, facts, pixel_facts(dataset), num_val, step)
    settings = [*_data_settings(cfg, declared, name), *choose_settings(case)]
    settings.append(Setting("OUTPUT_DIR", f"outputs/{name}"))
    command = f"{command_line('tools/train_net.py', 'train')} --config-file {shlex.quote(str(request.output))}"
    head = [*_summary(case), "Train and test with", f"    {command}"]
    first = Setting("_BASE_", _base_path(base, request.output), why_base)
    write_text(request.output, commented_yaml(head, first, settings))
    return case, settings, command


def _base_path(base: str, output: Path) -> str:
    """Relative within the repository, so that it can be moved; else the name among the packaged configurations."""
    configs, folder = shipped("configs"), output.absolute().parent
    if configs.parent in (folder, *folder.parents):
        return Path(os.path.relpath(configs / base, folder)).as_posix()
    return base


def _body(request: Request) -> tuple[str, str, str]:
    """(device, base, the reason for the base)."""
    device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; write --device cpu")
    missing = _why_not_obtainable(LARGE_BASE) if device == "cuda" else ""
    if device == "cuda" and not missing:
        return device, LARGE_BASE, "ATSS R-50 from ImageNet weights, the usual one on a GPU"
    why = f"those of R-50 cannot be obtained: {missing}" if missing else "small enough for a CPU"
    if advice := _why_not_obtainable(PACKAGED_BASE):
        return (
            device,
            SMALL_BASE,
            f"a narrow ATSS R-18 from random weights, {why}; ImageNet weights are better: {advice}",
        )
    return device, PACKAGED_BASE, f"a narrow ATSS EfficientNet-Lite0 from ImageNet weights, {why}"


def _why_not_obtainable(base: str) -> str:
    return why_not_obtainable(load_config(shipped("configs") / base, []).MODEL.WEIGHT)


def _base_config(base: str, device: str, declared: Declared, name: str) -> CfgNode:
    """The base on `device` with the data sets. A background among the classes is dropped."""
    cfg = load_config(shipped("configs") / base, ["MODEL.DEVICE", device, "MODEL.ATSS.NUM_CLASSES", 0])
    cfg.defrost()
    cfg.merge_from_other_cfg({"DATASETS": {"CATALOG": _catalog(declared, name), "TRAIN": (f"{name}_{TRAIN}",)}})
    cfg.DATASETS.DROP_BACKGROUND = bool(background_rows(build_dataset(cfg, f"{name}_{TRAIN}").annotations, []))
    cfg.freeze()
    return cfg


def _catalog(declared: Declared, name: str, root: Path | None = None) -> dict[str, dict[str, str | bool]]:
    """The entries; paths are absolute, or relative to `root` where they are below it."""

    def path_of(path: Path) -> str:
        path = path.absolute()
        return path.relative_to(root).as_posix() if root and root in path.parents else str(path)

    entries = {}
    for split, each in declared.sets.items():
        entry: dict[str, str | bool] = {"img_dir": path_of(each.img_dir), "ann_file": path_of(each.ann_file)}
        if each.format not in ("", "coco"):
            entry["format"] = each.format
        if each.unlisted_are_empty:
            entry["unlisted_are_empty"] = True
        entries[f"{name}_{split}"] = entry
    return entries


def _probe(cfg: CfgNode, class_names: Sequence[str]) -> StepTime:
    """The time of a training step of `PROBE_BATCH` images of `PROBE_SIZE`."""
    model = build_model(cfg, class_names).train()
    batch = noise(PROBE_BATCH, 3, PROBE_SIZE, 5, cfg.DATALOADER.SIZE_DIVISIBILITY)
    torch.set_flush_denormal(True)  # as in training
    try:
        return time_step(model, build_optimizer(cfg, model), build_precision(cfg, build_device(cfg)), batch)
    finally:
        torch.set_flush_denormal(False)  # the caller's floats stay those of IEEE 754


def _data_settings(cfg: CfgNode, declared: Declared, name: str) -> list[Setting]:
    root = Path(os.path.commonpath([each.img_dir.absolute() for each in declared.sets.values()]))
    settings = [
        Setting("DATASETS.ROOT", str(root)),
        *(Setting(f"DATASETS.CATALOG.{key}", entry) for key, entry in _catalog(declared, name, root).items()),
        Setting("DATASETS.TRAIN", [f"{name}_{TRAIN}"]),
        Setting("DATASETS.TEST", [f"{name}_{VAL}"]),
    ]
    if cfg.DATASETS.DROP_BACKGROUND:
        settings.append(Setting("DATASETS.DROP_BACKGROUND", True, "a class that stands for no object"))
    return settings


# ---------------------------------------------------------------- words


def _summary(case: Case) -> list[str]:
    facts = case.facts
    height, width = facts.image_size
    counts = sorted(facts.boxes_of.items(), key=lambda pair: -pair[1])
    names = ", ".join(f"{name} {count}" for name, count in counts[:8]) + (", ..." if len(counts) > 8 else "")
    speed = ""
    if case.step:
        how = "estimated from one thread, as other programs run" if case.step.is_estimated else "measured"
        speed = f"; {case.rate / 1e6:.2g} million pixels per second in training ({how})"
    return [
        f"{case.request.data}: {facts.num_images} images to train on ({facts.empty_share:.0%} without boxes), "
        f"{case.num_val} to test on, {width} x {height}; {len(facts.sizes)} boxes: {names}",
        f"machine: {case.cfg.MODEL.DEVICE}, {num_cpus()} processors{speed}",
    ]


def _warnings(case: Case, settings: Sequence[Setting]) -> list[str]:
    values = {each.key: each.value for each in settings}
    lines = []
    if case.step and values["SOLVER.MAX_ITER"] < recipe.LEAST_STEPS / 2:
        lines.append(f"{values['SOLVER.MAX_ITER']} steps are few: the model will be weak; --minutes gives it more time")
    if few := [name for name, count in case.facts.boxes_of.items() if count < FEW]:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        lines.append(f"classes with fewer than {FEW} boxes, which will hardly be learnt: {listed(few[:5])}{more}")
    return lines
