"""Measured numbers of a data set and a machine -> the settings of a new configuration.

The rules stand in `engine.analysis.recipe`; here they are asked, and their answers become keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from yacs.config import CfgNode

from engine.analysis import recipe
from engine.analysis.anchor_boxes import collect_boxes, count_positives
from engine.analysis.data_facts import DataFacts, PixelFacts
from engine.analysis.recipe import Choice, Limits
from engine.analysis.timing import StepTime
from engine.assembly.convention import build_convention
from engine.assembly.dense import build_assigner
from engine.config.commented import Setting
from engine.data.dataset import DetectionDataset
from engine.device import num_cpus
from engine.modeling.anchors import AnchorGenerator

SMALL_BASE, LARGE_BASE = "quickstart/_base_atss_R_18_cpu.yaml", "atss/atss_R_50_FPN_1x.yaml"
PACKAGED_BASE = "quickstart/_base_atss_Lite0_cpu.yaml"
"""In `configs`: a narrow R-18 from random weights, an R-50 from ImageNet weights that are downloaded, and a narrow
EfficientNet-Lite0 from those of a pip package."""
CPU_MINUTES = 10.0
PROBE_SIZE, PROBE_BATCH = (256, 320), 4
"""Of the training step that is timed."""
START_SECONDS = 15
"""For imports, headers of images and the checkpoint."""
TEST_COST, CANDIDATES_COST = 0.4, 0.02
"""Time of an image in testing relative to training, and seconds for its candidates."""
MEMORY_PER_PIXEL = {SMALL_BASE: 1500, PACKAGED_BASE: 2000, LARGE_BASE: 4000}
"""Bytes of GPU memory that an image takes in training, with half precision."""
TILE_SIDES = (320, 512), (512, 800)
"""Fewest and most pixels of a tile as the network sees it, on a CPU and on a GPU."""
POSITIVES_OF = 200
"""Images whose boxes are given to the assigner."""


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        data: folder or annotation file.
        images: folders of the images; () to seek them.
        output: the YAML file to write.
        minutes: for the training and its test; None: 10 on a CPU, no limit on a GPU.
        device: "cpu", "cuda" or "" for what is there.
        val_share: of the images, where nothing says which are for testing.
        seed: for their choice.
    """

    data: Path
    images: tuple[Path, ...]
    output: Path
    minutes: float | None = None
    device: str = ""
    val_share: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """All that is known before the choice.

    Attributes:
        base: `SMALL_BASE`, `PACKAGED_BASE` or `LARGE_BASE`.
        cfg: the base with the data sets.
        dataset: to train on.
        num_val: images to test on.
        step: of a training step of `PROBE_BATCH` images of `PROBE_SIZE`; None without a time budget.
    """

    request: Request
    base: str
    cfg: CfgNode
    dataset: DetectionDataset
    facts: DataFacts
    pixels: PixelFacts
    num_val: int
    step: StepTime | None

    @property
    def is_gpu(self) -> bool:
        return self.cfg.MODEL.DEVICE == "cuda"

    @property
    def rate(self) -> float:
        """Pixels per second in training; infinite without a time budget."""
        return PROBE_BATCH * math.prod(PROBE_SIZE) / self.step.seconds if self.step else math.inf

    @property
    def budget(self) -> float:
        """Seconds; infinite without a time budget."""
        return 60 * (self.request.minutes or (math.inf if self.is_gpu else CPU_MINUTES))

    @property
    def limits(self) -> Limits:
        pixels = 0.9 * self.budget * self.rate if self.step else math.inf
        if self.is_gpu:
            return Limits(area=800 * 1333, least_side=480, pixels=pixels, small_object=32)
        return Limits(area=800 * 800, least_side=224, pixels=pixels)


def choose_settings(case: Case) -> list[Setting]:
    """All settings but those of the data sets."""
    facts, limits = case.facts, case.limits
    small = recipe.small_object_size(facts.typical_sizes, facts.labels)
    scale = recipe.choose_scale(facts.image_size, small, limits)
    short, long = recipe.scaled_sides(facts.image_size, scale.value)
    longest = max(math.ceil(short * facts.long_side), long)
    settings: list[Setting] = []
    views = 1  # that the network sees of an image
    tiles = _choose_tiles(case, scale.value)
    if tiles:
        plan = tiles.value
        short = long = longest = plan.side
        scale = Choice(plan.side / plan.size, f"tiles of {plan.size} pixels, see TILING")
        views = recipe.num_tiles(facts.image_size, plan) + plan.keep_full
        whole = "whole images, too, for objects that no tile shows whole" if plan.keep_full else "no object needs it"
        settings += [
            Setting("TILING.SIZE", plan.size, tiles.reason),
            Setting("TILING.OVERLAP", plan.overlap, "so that most objects lie whole in some tile"),
            Setting("TILING.KEEP_FULL", plan.keep_full, whole),
        ]
    sides = recipe.choose_train_sides(short, limits.pixels / (short * long * views * facts.num_images))
    settings += _model_settings(case, scale.value)
    settings += _input_settings(case, scale, sides, (short, longest))
    settings += _loader_settings(case, views)
    area = recipe.batch_area(sides.value, long / short, 4, max(case.cfg.DATALOADER.SIZE_DIVISIBILITY, 1))
    return [*settings, *_solver_settings(case, area, views), *_test_settings(case)]


def _choose_tiles(case: Case, scale: float) -> Choice | None:
    """Tiles of the pixels of the originals, which may be of different sizes, unlike whole images after resizing."""
    facts, (least, most) = case.facts, TILE_SIDES[case.is_gpu]
    area = min(max(case.limits.pixels / recipe.LEAST_SAMPLES, least**2), most**2)
    small = recipe.small_object_size(facts.sizes, facts.labels)
    return recipe.choose_tiles(facts.image_size, facts.sizes, small, scale, area)


def _model_settings(case: Case, scale: float) -> list[Setting]:
    cfg, strides = case.cfg, case.cfg.MODEL.ATSS.ANCHOR_STRIDES
    short = max(round(min(case.facts.image_size) * scale), 1)  # with tiles, of the image that they are cut from
    longest = math.ceil(short * max(case.facts.long_side, 1))
    seen = collect_boxes([case.dataset], short, longest, cfg.DATALOADER.SIZE_DIVISIBILITY, POSITIVES_OF)
    shares = {}
    for factor in (8, 4) if case.base == LARGE_BASE else (4, 8):
        sizes = [[factor * stride] for stride in strides]
        generator = AnchorGenerator(sizes, cfg.MODEL.ATSS.ASPECT_RATIOS, strides, build_convention(cfg))
        shares[factor] = float((count_positives(seen, generator, build_assigner(cfg)) == 0).mean())
    anchors = recipe.choose_anchor_factor(shares)
    names = case.dataset.class_names
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return [
        Setting("MODEL.DEVICE", cfg.MODEL.DEVICE),
        Setting("MODEL.ATSS.NUM_CLASSES", 0, f"taken from the data, {len(names)}: {listed}"),
        Setting("MODEL.ATSS.ANCHOR_SIZES", [anchors.value * stride for stride in strides], anchors.reason),
    ]


def _input_settings(case: Case, scale: Choice, sides: Choice, test_size: tuple[int, int]) -> list[Setting]:
    short, longest = test_size
    names = case.dataset.class_names
    mirror = recipe.choose_horizontal_flip(names)
    flip = recipe.choose_vertical_flip(names, case.pixels.brighter_above)
    return [
        Setting("INPUT.MIN_SIZE_TRAIN", sides.value, sides.reason),
        Setting("INPUT.MAX_SIZE_TRAIN", math.ceil(longest * sides.value[-1] / short)),
        Setting("INPUT.MIN_SIZE_TEST", short, scale.reason),
        Setting("INPUT.MAX_SIZE_TEST", longest),
        Setting("INPUT.HORIZONTAL_FLIP_PROB_TRAIN", mirror.value, mirror.reason),
        Setting("INPUT.VERTICAL_FLIP_PROB_TRAIN", flip.value, flip.reason),
    ]


def _num_workers(case: Case) -> int:
    return min(max(num_cpus() // 2, 1), 8) if case.is_gpu else min(max(num_cpus() // 4, 1), 4)


def _loader_settings(case: Case, views: int) -> list[Setting]:
    reason = "as many as keep a GPU busy" if case.is_gpu else f"the rest of the {num_cpus()} processors train"
    settings = [Setting("DATALOADER.NUM_WORKERS", _num_workers(case), reason)]
    if views > 1:
        settings.append(Setting("DATALOADER.EMPTY_SHARE", 0.25, "of each batch without boxes: most tiles are empty"))
    elif case.facts.empty_share > 0.5:
        reason = f"of each batch without boxes: {case.facts.empty_share:.0%} of the images are empty"
        settings.append(Setting("DATALOADER.EMPTY_SHARE", 0.3, reason))
    return settings


def _solver_settings(case: Case, area: float, views: int) -> list[Setting]:
    """Batch, rate and schedule.

    Args:
        area: pixels of an image, or tile, in training.
        views: images that the network sees of one: 1, or its tiles and the whole picture.
    """
    num_views = case.facts.num_images * views
    samples = int(min(case.limits.pixels / area, 1e9))
    batch = recipe.choose_batch(samples, num_views, _largest_batch(case, area))
    iterations = _choose_iterations(case, area, views, batch.value)
    ema = recipe.choose_ema(iterations.value)
    settings = [Setting("SOLVER.IMS_PER_BATCH", batch.value, batch.reason)]
    if case.base == LARGE_BASE:
        settings += [
            Setting("SOLVER.BASE_LR", 0.01 * batch.value / 16, "0.01 for 16 images, as published"),
            Setting("SOLVER.SCHEDULE", "cosine", "needs no milestones"),
            Setting("SOLVER.WARMUP_METHOD", "linear"),
            Setting("SOLVER.CLIP_GRAD_NORM", 35.0, "against single odd batches"),
            Setting("SOLVER.AMP.ENABLED", True, "half precision: faster, and less memory"),
            Setting("SOLVER.AMP.DTYPE", "bfloat16" if torch.cuda.is_bf16_supported() else "float16"),
        ]
    else:
        settings.append(Setting("SOLVER.BASE_LR", 0.001, "for AdamW, at all batch sizes used here"))
    warmup = min(500 if case.base == LARGE_BASE else 50, max(iterations.value // 10, 1))
    settings += [
        Setting("SOLVER.WARMUP_ITERS", warmup),
        Setting("SOLVER.MAX_ITER", iterations.value, iterations.reason),
    ]
    if ema.value:
        settings.append(Setting("SOLVER.EMA_DECAY", ema.value, ema.reason))
    return settings


def _largest_batch(case: Case, area: float) -> int:
    if not case.is_gpu:
        return 8
    free = torch.cuda.mem_get_info()[0]
    most = max(int(0.6 * free / (MEMORY_PER_PIXEL[case.base] * area)), 1)
    return min(2 ** int(math.log2(most)), 16)


def _choose_iterations(case: Case, area: float, views: int, batch: int) -> Choice:
    num_views = case.facts.num_images * views
    if not case.step:
        passes = recipe.choose_passes(case.facts.num_images)
        least = recipe.LEAST_STEPS * (1 if case.base == LARGE_BASE else 3)
        steps = math.ceil(passes.value * num_views / batch)
        return Choice(steps, passes.reason) if steps >= least else Choice(least, f"fewer than {least} teach too little")
    reading = batch * case.pixels.seconds_to_read
    seconds = max(batch * area / case.rate + reading / num_cpus(), reading / _num_workers(case))
    per_view = TEST_COST * area / case.rate + CANDIDATES_COST
    test = case.num_val * (case.pixels.seconds_to_read + views * per_view)
    what = "images" if views == 1 else "tiles"
    reserved = min(START_SECONDS + test, case.budget / 2)
    return recipe.choose_iterations(seconds, case.budget, reserved, num_views, batch, what)


def _test_settings(case: Case) -> list[Setting]:
    most = case.facts.most_boxes
    if most <= 80:
        return []
    limit, reason = math.ceil(1.5 * most / 100) * 100, f"up to {most} objects per image"
    settings = [
        Setting("MODEL.ATSS.PRE_NMS_TOP_N", max(1000, 2 * limit), reason),
        Setting("TEST.DETECTIONS_PER_IMG", limit, reason),
    ]
    return [*settings, Setting("TEST.MAX_DETS", limit)] if most > 100 else settings
