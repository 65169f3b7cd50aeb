"""cfg -> what its data sets and its model are like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from yacs.config import CfgNode

from engine.analysis.anchor_analysis import best_iou, means_table, reach_table, shares_table, suggest
from engine.analysis.anchor_boxes import collect_boxes, count_positives
from engine.analysis.complexity import complexity, complexity_report
from engine.assembly.convention import build_convention
from engine.assembly.data import build_dataset, build_train_dataset
from engine.assembly.device import build_device
from engine.assembly.model import build_model, class_count
from engine.config.parts import dense_name
from engine.errors import InputError
from engine.modeling.anchors import AnchorGenerator
from engine.visualize.plots import anchors_plot


def analyze_anchors(
    cfg: CfgNode, max_images: int = 0, num_ratios: int | None = None, seed: int = 0
) -> tuple[str, np.ndarray]:
    """Tables on the boxes of `DATASETS.TRAIN` and the anchors of the model, and a plot of both (BGR uint8).

    Args:
        max_images: look at so many random images; 0 is all.
        num_ratios: ratios to suggest; by default as many as the anchors have.
        seed: of the images drawn and of the clusters.

    Raises:
        InputError: there is no training set, or it has no boxes.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty; name at least one data set")
    datasets = [build_dataset(cfg, name) for name in cfg.DATASETS.TRAIN]
    source = cfg.INPUT
    min_sizes = source.MIN_SIZE_RANGE_TRAIN if source.MIN_SIZE_RANGE_TRAIN[0] > 0 else source.MIN_SIZE_TRAIN
    min_size = round(sum(min_sizes) / len(min_sizes))
    divisibility = cfg.DATALOADER.SIZE_DIVISIBILITY
    seen = collect_boxes(datasets, min_size, source.MAX_SIZE_TRAIN, divisibility, max_images, seed)
    stage = build_model(cfg, datasets[0].class_names).rpn
    generator, is_points = stage.anchor_generator, cfg.MODEL.RPN_ONLY and dense_name(cfg) == "FCOS"
    cells = generator.cells.double().numpy()  # (L, A, 4)
    text = [
        f"{len(seen.boxes)} boxes of {seen.num_images} images at a short side of {min_size} pixels",
        "boxes by size and ratio (%)\n" + shares_table(seen.shapes),
    ]
    if num_ratios is None:
        shapes = cells[0, :, 2:] - cells[0, :, :2]  # (A, 2)
        num_ratios = 3 if is_points else len(np.unique((shapes[:, 1] / shapes[:, 0]).round(2)))
    ratios, sizes = suggest(seen.shapes, num_ratios, len(cells), seed)
    sizes += [sizes[-1] * 2.0 ** (i + 1) for i in range(len(cells) - len(sizes))]  # boxes of few sizes
    suggested = AnchorGenerator([[size] for size in sizes], ratios, generator.strides, build_convention(cfg))
    sets = {} if is_points else {"configured": cells}
    sets["suggested"] = suggested.cells.double().numpy()
    reached = {
        f"{name} ({each.shape[0] * each.shape[1]} shapes)": best_iou(
            seen.boxes, seen.image_sizes, each, generator.strides
        )
        for name, each in sets.items()
    }
    text.append("share of boxes that an anchor on the grid reaches\n" + reach_table(reached))
    text.append(
        "suggested by clusters of IoU\n"
        f"  ASPECT_RATIOS: [{', '.join(f'{ratio:.2f}' for ratio in ratios)}]\n"
        f"  ANCHOR_SIZES: [{', '.join(f'{size:.0f}' for size in sizes)}]"
    )
    if hasattr(stage, "assign"):
        positives = count_positives(seen, generator, stage.assign)
        text.append(
            f"positives of a box, mean by size and ratio ({(positives == 0).mean():.1%} of the boxes have none)\n"
            + means_table(seen.shapes, positives)
        )
    marks = {name: (each[..., 2:] - each[..., :2]).reshape(-1, 2) for name, each in sets.items()}
    return "\n\n".join(text), anchors_plot(seen.shapes, marks)


def analyze_complexity(cfg: CfgNode, image_size: tuple[int, int] | None = None, depth: int = 2) -> str:
    """What the model of `cfg`, with random weights, costs for one image: parameters, operations, activations by module.

    Args:
        cfg: a configuration.
        image_size: height and width of the image, pixels; by default the largest one in testing.
        depth: of the modules in the table.

    Raises:
        InputError: the model cannot be built, or nothing tells its number of classes.
    """
    cfg = cfg.clone()
    cfg.defrost()
    # Without suppression the second stage gets as many regions as it may, whatever the random weights propose.
    cfg.MODEL.RPN.NMS_THRESH = 0.0
    source = cfg.INPUT
    image_size = image_size or (min(source.MIN_SIZE_TEST, source.MAX_SIZE_TEST), source.MAX_SIZE_TEST)
    cost = complexity(build_model(cfg, _class_names_for(cfg)), image_size, build_device(cfg))
    is_adaptive = cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO == 0
    return complexity_report(cost, image_size, cfg.DATALOADER.SIZE_DIVISIBILITY, depth, is_adaptive)


def _class_names_for(cfg: CfgNode) -> Sequence[str]:
    """Those of the training set where the configuration leaves the number of classes to it."""
    key, count = class_count(cfg)
    if count:
        return ()
    try:
        return build_train_dataset(cfg).class_names
    except InputError as error:
        raise InputError(f"{error}; or state the number of classes: {key} K+1") from None
