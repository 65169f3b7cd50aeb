"""cfg -> what the checks of `engine.data.doctor` look at, and their findings."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from engine.analysis.anchor_fit import anchor_fit
from engine.assembly.augmentation import build_augmentations
from engine.assembly.cost import estimate_cost
from engine.assembly.data import build_dataset, epoch_length
from engine.assembly.device import build_device
from engine.assembly.model import build_model, num_classes
from engine.assembly.sizes import train_limits
from engine.assembly.solver import base_lr, run_length
from engine.assembly.testing import detection_limits
from engine.assembly.tiling import is_tiled, report_tiles, with_tiles
from engine.assembly.weights import load_initial_weights, unmet_conventions, written
from engine.checkpoint.sources import locate
from engine.checkpoint.weights import read_weights, read_weights_for
from engine.config.parts import dense_name
from engine.data import catalog, summary
from engine.data.annotations import AnnotationTable
from engine.data.dataset import CocoDataset, DetectionDataset, LabelledImages
from engine.data.doctor import CODES, Case, ExaminedSet, Finding, examine, reading
from engine.data.doctor.case import AnchorFit, Machine, Plan, Samples, WeightFacts
from engine.data.doctor.classes import shifted_ids
from engine.data.doctor.findings import by_severity
from engine.data.doctor.fix import readable
from engine.data.doctor.listing import unlisted_files
from engine.data.doctor.picture_facts import PictureFacts, look_at_all
from engine.data.formats import coco
from engine.data.formats.recognise import recognise
from engine.data.tiled_dataset import untiled
from engine.device import free_memory, num_cpus
from engine.distributed import broadcast_object, is_main
from engine.errors import InputError
from engine.files import expanded, read_json
from engine.log import ROOT, get_logger, warn_once
from engine.modeling.detector import GeneralizedRCNN
from engine.registry import import_modules

_POSITIVES_IN = {True: 300, False: 2000}
"""Images whose boxes are given to the assigner, by whether the check is quick."""


@dataclass(frozen=True)
class Checkup:
    """The outcome of `check_data`.

    Attributes:
        findings: errors first.
        summaries: the counts of each data set that can be read.
        datasets: these data sets by name, for pictures.
        looked: what was looked at, in words.
        unreadable: data set -> file -> why it cannot be read, of the images that were opened.
    """

    findings: list[Finding]
    summaries: list[summary.DataSummary]
    datasets: dict[str, DetectionDataset] = field(default_factory=dict)
    looked: str = ""
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error."""
        return any(each.severity == "error" for each in self.findings)


def check_data(
    cfg: CfgNode, quick: bool = False, on_images: Callable[[int], Callable[[], Any]] | None = None
) -> Checkup:
    """Check the data sets of `cfg` with each other, with their images and with the rest of the configuration.

    Nothing is downloaded or written.

    Args:
        quick: open no images; headers are read as at the start of a training.
        on_images: called with the number of images that will be opened; what it returns is called after each.
    """
    import_modules(cfg.IMPORTS)
    with silent():
        examined, said = _open_all(cfg)
        train = [each for each in examined if "train" in each.roles]
        class_names = train[0].class_names if train else ()
        model, fault = _build(cfg, class_names)
        said += fault
        pictures = {} if quick else _open_images(examined, on_images)
        said += _faults_of_steps(cfg, class_names)
        tiled = [with_tiles(cfg, each.dataset, cfg.DATALOADER.FILTER_EMPTY) for each in train] if is_tiled(cfg) else []
        num_samples = sum(epoch_length(cfg, each) for each in tiled or [each.dataset for each in train])
        case = Case(
            datasets=tuple(examined),
            said=tuple(said),
            pictures=pictures,
            unlisted=unlisted_files([each.dataset for each in examined]),
            plan=plan_of(cfg, num_samples),
            machine=machine_of(cfg),
            cost=None if quick or model is None else estimate_cost(cfg, model, num_samples),
            anchors=_anchors(cfg, model, train, quick) if model and train else None,
            weights=_weights(cfg, model),
            samples=Samples(num_samples, {each.images.name: each.plan() for each in tiled}),
        )
        summaries, others = summary.summarize_case(case)
    findings = [*(each for one in summaries for each in one.findings), *others]
    order = list(CODES)
    findings = by_severity(sorted(findings, key=lambda each: order.index(each.code) if each.code in order else 0))
    opened = sum(len(each.looks) for each in pictures.values())
    looked = f"{opened} images opened" if pictures else "no images opened, only headers of files"
    unreadable = {
        each.name: {each.file_name(k): look.fault for k, look in enumerate(pictures[each.name].looks) if look.fault}
        for each in examined
        if each.name in pictures
    }
    return Checkup(findings, summaries, {each.name: each.dataset for each in examined}, looked, unreadable)


def summarize_train_data(cfg: CfgNode, dataset: LabelledImages) -> list[summary.DataSummary]:
    """Count and log what there is to train on, at the largest of the training sizes, and what quick checks find.

    Raises:
        InputError: there is no box to train on, or the boxes of a data set are not [x, y, width, height] in pixels.
    """
    summaries = None
    if is_main():  # which alone reads the headers of the files
        sizes, max_size = train_limits(cfg)
        examined = examine(untiled(dataset), max(sizes), max_size, tile_size=max(cfg.TILING.SIZE, 0))
        num_samples = epoch_length(cfg, dataset)
        plan, samples = plan_of(cfg, num_samples), Samples(num_samples)
        case = Case(tuple(examined), plan=plan, machine=machine_of(cfg), samples=samples)
        summaries, others = summary.summarize_case(case)
        summary.report(summaries)
        for each in others:
            if each.severity != "note":
                warn_once(f"{each.message} ({each.code})")
    summaries = broadcast_object(summaries)
    summary.check_trainable(summaries)
    report_tiles(cfg, dataset)
    return summaries


def plan_of(cfg: CfgNode, num_images: int) -> Plan:
    """What `cfg` says of a training on so many images, or tiles."""
    length = run_length(cfg, num_images)
    steps = length.steps if cfg.SOLVER.SCHEDULE == "multistep" else ()
    with silent():  # the start of a training says how the rate is scaled
        rate = base_lr(cfg)
    return Plan(
        max_iter=length.max_iter,
        batch=cfg.SOLVER.IMS_PER_BATCH,
        base_lr=rate,
        optimizer=cfg.SOLVER.OPTIMIZER,
        last_drop=min(steps, default=None),
        warmup=cfg.SOLVER.WARMUP_ITERS,
        flips=_mirrors(cfg),
        limits=detection_limits(cfg),
        max_dets=cfg.TEST.MAX_DETS,
        value_range=cfg.INPUT.VALUE_RANGE or None,
    )


def _mirrors(cfg: CfgNode) -> bool:
    """Whether training mirrors images, or objects that it pastes, left to right."""
    return cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN > 0 or any(
        step["name"] == "HorizontalFlip" or (step["name"] == "CopyPaste" and step.get("flip", True))
        for step in cfg.INPUT.AUGMENTATIONS
    )


def machine_of(cfg: CfgNode) -> Machine:
    """What this machine has for the run of `cfg`."""
    shared = None
    with suppress(OSError):
        shared = shutil.disk_usage("/dev/shm").free
    folder = Path(os.path.abspath(expanded(cfg.OUTPUT_DIR)))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    disk = 0
    with suppress(OSError):
        disk = shutil.disk_usage(folder).free
    sizes, max_size = train_limits(cfg)
    return Machine(
        cpus=num_cpus(),
        memory=free_memory(build_device(cfg)),
        shared_memory=shared,
        disk=disk,
        workers=cfg.DATALOADER.NUM_WORKERS,
        batch_bytes=cfg.INPUT.CHANNELS * cfg.SOLVER.IMS_PER_BATCH * max(sizes) * max_size,
    )


# ---------------------------------------------------------------- data sets


def _open_all(cfg: CfgNode) -> tuple[list[ExaminedSet], list[Finding]]:
    """The data sets that can be read, and what is said of reading all of them."""
    roles: dict[str, list[str]] = {}
    for role, names in (("train", cfg.DATASETS.TRAIN), ("val", cfg.DATASETS.VAL), ("test", cfg.DATASETS.TEST)):
        for name in names:
            roles.setdefault(name, [])
            roles[name] += [role] * (role not in roles[name])
    examined: list[ExaminedSet] = []
    said: list[Finding] = []
    for key, names in (("DATASETS.TRAIN", cfg.DATASETS.TRAIN), ("DATASETS.TEST", cfg.DATASETS.TEST)):
        if not names:
            said.append(reading.NO_SET.finding(f"{key} is empty"))
    class_names: Sequence[str] | None = None
    for name, of_name in roles.items():
        is_trained = "train" in of_name
        with _heard() as lines:
            try:
                dataset = build_dataset(cfg, name, class_names, is_trained and cfg.DATALOADER.FILTER_EMPTY)
            except InputError as error:
                faults, dataset = _faults(cfg, name, error, class_names)
                said += faults
        said += [reading.of_note(line, name) for line in lines]
        if dataset is not None:
            class_names = class_names or dataset.class_names
            sizes, max_size = train_limits(cfg)
            size = (max(sizes), max_size)
            if not is_trained:
                size = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
            examined += examine(dataset, *size, of_name, max(cfg.TILING.SIZE, 0))
    return examined, said


def _faults(
    cfg: CfgNode, name: str, error: InputError, class_names: Sequence[str] | None
) -> tuple[list[Finding], CocoDataset | None]:
    """What keeps a data set from being read: all faults of its annotation file, if they are in there.

    Also the data set without the annotations at fault, where that can be read, so that the other checks go on.
    """
    lines, found, dataset = str(error).splitlines(), [], None
    with suppress(InputError):
        paths = catalog.resolve(name, cfg.DATASETS.ROOT, cfg.DATASETS.CATALOG)
        path = paths.ann_file
        if str(error).startswith(str(path)) and (paths.format or recognise(path)) == "coco":
            lines = list(coco.file_faults(path)) or lines
            data = read_json(path)
            found += [each for each in [shifted_ids(data, name)] if each]
            data = readable(data)
            reader = partial(_table, data, path)
            dataset = CocoDataset(name, paths.img_dir, path, class_names, reader=reader)
            dataset.value_range = cfg.INPUT.VALUE_RANGE or None
            dataset.channels, dataset.orientation = cfg.INPUT.CHANNELS, cfg.INPUT.ORIENTATION
    return [*found, *reading.of_errors(lines, name)], dataset


def _table(data: Any, path: Path, ann_file: Path, img_dir: Path) -> AnnotationTable:
    return coco.to_table(data, path)


def _open_images(
    examined: Sequence[ExaminedSet], on_images: Callable[[int], Callable[[], Any]] | None
) -> dict[str, PictureFacts]:
    total = sum(each.num_images for each in examined)
    tick = on_images(total) if on_images else lambda: None
    return {
        each.name: look_at_all(each.dataset.image_path, each.num_images, tick, each.dataset.reading)
        for each in examined
    }


# ---------------------------------------------------------------- the model


def _build(cfg: CfgNode, class_names: Sequence[str]) -> tuple[GeneralizedRCNN | None, list[Finding]]:
    """The model on the CPU, or why there is none."""
    on_cpu = cfg.clone()
    on_cpu.defrost()
    on_cpu.MODEL.DEVICE = "cpu"
    state = torch.random.get_rng_state()
    try:
        num_classes(on_cpu, class_names)
        return build_model(on_cpu, class_names), []
    except InputError as error:
        if not class_names:
            return None, []  # the data set could not be read, which is said
        is_count = "background included" in str(error)
        code = reading.CLASS_COUNT if is_count else reading.CONFIG
        return None, [code.finding(str(error))]
    finally:
        torch.random.set_rng_state(state)


def _faults_of_steps(cfg: CfgNode, class_names: Sequence[str]) -> list[Finding]:
    """What keeps the steps of INPUT.AUGMENTATIONS from being built."""
    try:
        build_augmentations(cfg, class_names)
    except InputError as error:
        return [reading.CONFIG.finding(str(error))] if class_names else []
    return []


def _anchors(cfg: CfgNode, model: GeneralizedRCNN, train: Sequence[ExaminedSet], quick: bool) -> AnchorFit | None:
    stage, (sizes, max_size) = model.rpn, train_limits(cfg)
    generator = stage.anchor_generator
    assign = getattr(stage, "assign", None)
    if assign is None and hasattr(stage, "matcher"):

        def assign(anchors: Any, boxes: torch.Tensor) -> torch.Tensor:
            return stage.matcher(anchors.boxes, boxes)[0]

    size = (round(sum(sizes) / len(sizes)), max_size)
    most = _POSITIVES_IN[quick]
    fit = anchor_fit(train, size, cfg.DATALOADER.SIZE_DIVISIBILITY, generator, assign, most, max(cfg.TILING.SIZE, 0))
    if cfg.MODEL.RPN_ONLY and dense_name(cfg) == "FCOS":  # points, which have no IoU
        fit = AnchorFit(fit.best_iou * 0 + 1, fit.positives, fit.shapes, fit.sources)
    return fit


def _weights(cfg: CfgNode, model: GeneralizedRCNN | None) -> WeightFacts | None:
    source = cfg.MODEL.WEIGHT
    if not source:
        return None
    try:
        url, path = locate(source)
        if url and not path.is_file():
            return WeightFacts(source, fault=f"{source} would be downloaded from {url} to {path}", is_remote=True)
        file = read_weights_for(model, source) if model else read_weights(source)
        report = load_initial_weights(cfg, model) if model else None
    except InputError as error:
        return WeightFacts(source, fault=str(error))
    unmet = unmet_conventions(cfg, file)
    is_same = report is None or report.ok or report.backbone_only or not (report.missing or report.unexpected)
    mismatch = "" if is_same else report.summary()
    return WeightFacts(source, file.class_names, written(unmet) if unmet else "", "", mismatch)


# ---------------------------------------------------------------- the log


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """The warnings that the engine logs within the block, which go nowhere else."""
    logger, listener = get_logger(ROOT), _Listener()
    handlers, propagate = list(logger.handlers), logger.propagate
    warn_once.cache_clear()
    logger.handlers[:], logger.propagate = [listener], False
    try:
        yield listener.lines
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate


@contextmanager
def silent() -> Iterator[None]:
    """The engine warns of nothing within the block, for what is said otherwise."""
    with _heard():
        yield
