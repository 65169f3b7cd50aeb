"""cfg -> analyses of its data sets and its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from yacs.config import CfgNode

from engine.analysis.anchor_analysis import best_iou, means_table, reach_table, shares_table, suggest
from engine.analysis.anchor_boxes import collect_boxes, count_positives
from engine.analysis.complexity import complexity, complexity_report
from engine.analysis.dataset_pictures import batch_pictures
from engine.assembly.convention import build_convention
from engine.assembly.data import build_dataset, build_train_dataset, build_train_loader, build_train_transform
from engine.assembly.device import build_device
from engine.assembly.model import build_model, class_count
from engine.assembly.sizes import train_limits
from engine.config.parts import dense_name
from engine.data.transforms import Normalize
from engine.errors import InputError
from engine.modeling.anchors import AnchorGenerator
from engine.visualize.plots import anchors_plot


def analyze_anchors(
    cfg: CfgNode, max_images: int = 0, num_ratios: int | None = None, seed: int = 0
) -> tuple[str, np.ndarray]:
    """Tables of the boxes of `DATASETS.TRAIN` and the anchors of the model, and a plot of both (BGR uint8).

    Args:
        max_images: number of random images; 0 means all.
        num_ratios: number of ratios to suggest; by default as many as the anchors have.
        seed: for the choice of images and for the clusters.

    Raises:
        InputError: there is no training set, or it has no boxes.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty; name at least one data set")
    datasets = [build_dataset(cfg, name) for name in cfg.DATASETS.TRAIN]
    min_sizes, max_size = train_limits(cfg)
    min_size, divisibility = round(sum(min_sizes) / len(min_sizes)), cfg.DATALOADER.SIZE_DIVISIBILITY
    tile_size = max(cfg.TILING.SIZE, 0)
    seen = collect_boxes(datasets, min_size, max_size, divisibility, max_images, seed, tile_size)
    stage = build_model(cfg, datasets[0].class_names).rpn
    generator, is_points = stage.anchor_generator, cfg.MODEL.RPN_ONLY and dense_name(cfg) == "FCOS"
    cells = generator.cells.double().numpy()  # (L, A, 4)
    text = [
        f"{len(seen.boxes)} boxes in {seen.num_images} images with "
        + (f"tiles of {tile_size} pixels scaled to {min_size}" if tile_size else f"a short side of {min_size} pixels"),
        "boxes by size and ratio (%)\n" + shares_table(seen.shapes),
    ]
    if num_ratios is None:
        shapes = cells[0, :, 2:] - cells[0, :, :2]  # (A, 2)
        num_ratios = 3 if is_points else len(np.unique((shapes[:, 1] / shapes[:, 0]).round(2)))
    ratios, sizes = suggest(seen.shapes, num_ratios, len(cells), seed)
    sizes += [sizes[-1] * 2.0 ** (i + 1) for i in range(len(cells) - len(sizes))]  # fewer sizes than levels
    suggested = AnchorGenerator([[size] for size in sizes], ratios, generator.strides, build_convention(cfg))
    sets = {} if is_points else {"configured": cells}
    sets["suggested"] = suggested.cells.double().numpy()
    reached = {}
    for name, each in sets.items():
        ious = best_iou(seen.boxes, seen.image_sizes, each, generator.strides)
        reached[f"{name} ({each.shape[0] * each.shape[1]} shapes)"] = ious
    text.append("share of the boxes that an anchor on the grid reaches\n" + reach_table(reached))
    text.append(
        "suggested by clustering with IoU\n"
        f"  ASPECT_RATIOS: [{', '.join(f'{ratio:.2f}' for ratio in ratios)}]\n"
        f"  ANCHOR_SIZES: [{', '.join(f'{size:.0f}' for size in sizes)}]"
    )
    if hasattr(stage, "assign"):
        positives = count_positives(seen, generator, stage.assign)
        text.append(
            f"mean positives per box by size and ratio ({(positives == 0).mean():.1%} of the boxes have none)\n"
            + means_table(seen.shapes, positives)
        )
    marks = {name: (each[..., 2:] - each[..., :2]).reshape(-1, 2) for name, each in sets.items()}
    return "\n\n".join(text), anchors_plot(seen.shapes, marks)


def browse_training(
    cfg: CfgNode, start_iteration: int, num_images: int, show_labels: bool = True
) -> Iterator[tuple[int, np.ndarray]]:
    """What the network sees: the first images that a run with this configuration trains on from an iteration on.

    Yields:
        The iteration, and a picture (BGR uint8) with boxes and ignore regions.

    Raises:
        InputError: the run ends before `start_iteration`, or its data are unusable.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0  # the pixels are the same, and the batches that nobody looks at are not loaded
    cfg.SOLVER.ACCUMULATE = 1  # so that a batch is an iteration
    loader = build_train_loader(cfg, start_iteration)
    if not len(loader):
        raise InputError(f"the run ends before iteration {start_iteration}; see SOLVER.MAX_ITER")
    class_names = loader.dataset.class_names
    normalize = next(each for each in build_train_transform(cfg, class_names).steps if isinstance(each, Normalize))
    num_left = num_images
    for iteration, batch in enumerate(loader, start_iteration):
        for picture in batch_pictures(batch, normalize, class_names, f"iteration {iteration}", show_labels):
            yield iteration, picture
            num_left -= 1
            if not num_left:
                return


def analyze_complexity(cfg: CfgNode, image_size: tuple[int, int] | None = None, depth: int = 2) -> str:
    """The cost of the model of `cfg` for one image by module: parameters, operations, activations. Weights are random.

    Args:
        image_size: height and width of the image in pixels; by default the largest size in testing.
        depth: of the modules shown in the table.

    Raises:
        InputError: the model cannot be built, or its number of classes is unknown.
    """
    cfg = cfg.clone()
    cfg.defrost()
    # Without NMS the second stage gets as many regions as it can, however much the proposals of random weights overlap.
    cfg.MODEL.RPN.NMS_THRESH = 0.0
    image_size = image_size or (min(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST), cfg.INPUT.MAX_SIZE_TEST)
    cost = complexity(build_model(cfg, _class_names_for(cfg)), image_size, build_device(cfg), cfg.INPUT.CHANNELS)
    is_adaptive = cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO == 0
    return complexity_report(cost, image_size, cfg.DATALOADER.SIZE_DIVISIBILITY, depth, is_adaptive)


def _class_names_for(cfg: CfgNode) -> Sequence[str]:
    """The class names of the training set, if the configuration leaves the number of classes to it."""
    key, count = class_count(cfg)
    if count:
        return ()
    try:
        return build_train_dataset(cfg).class_names
    except InputError as error:
        raise InputError(f"{error}; or set the number of classes: {key} K+1") from None
