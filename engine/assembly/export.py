"""cfg -> an exported file."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from engine.assembly.calibration import calibration_samples
from engine.assembly.convention import build_convention
from engine.assembly.detector import DEFAULT_THRESHOLD, build_normalize, load_trained, usable_thresholds
from engine.assembly.export_trial import try_file
from engine.assembly.model import num_classes
from engine.assembly.tiling import build_fill, build_tile_merge, build_tiling, is_tiled
from engine.assembly.weights import follow_conventions
from engine.checkpoint.sources import resolve
from engine.checkpoint.weights import WeightFile, read_weights
from engine.config import load_config
from engine.config.parts import body_name, dense_name, neck_name
from engine.data.find_images import find_images
from engine.data.transforms import resized_size
from engine.environment import engine_version
from engine.errors import InputError
from engine.export import onnx_writer, openvino, torch_writers  # noqa: F401, they register the formats
from engine.export.formats import EXPORT_FORMATS, ExportOptions
from engine.export.graph import DetectionGraph, Scaling
from engine.export.precision import INFERENCE_PRECISION, check_precision, format_of
from engine.files import sha256, why_not_written
from engine.layers.folding import fold_norms
from engine.log import get_logger
from engine.modeling.detector import GeneralizedRCNN
from engine.registry import import_modules, lookup
from engine.runtime.card import FixedShape, ImageRule, ModelCard, TileRule

MARGIN = 2e-5
"""By which score thresholds in a file are lower: each is the score of a detection in the test set, which another
library computes with a last digit of its own."""


def export(
    config: CfgNode | str | Path,
    weights: str | Path,
    output: str | Path,
    format: str = "",
    precision: str = "fp32",
    shape: FixedShape = FixedShape(),  # noqa: B008, it is immutable
    images: Path | None = None,
    max_drop: float | None = None,
    kept: Sequence[str] = (),
    deformable: str = "auto",
) -> Path:
    """Write a trained model as a file for another runtime: the detections of the Predictor without torch.

    The file is tried before it takes its place, see `assembly.export_trial`; whatever fails, nothing is written.

    Args:
        config, weights: as for `Predictor`.
        output: the file; its ending says the format unless `format` does.
        format: "onnx", "openvino", "torchscript" or "torch-export".
        precision: "fp32", "fp16", "bf16" or "int8", where the format has it.
        shape: what is fixed; by default number and sizes of images are free.
        images: folder of real images, for int8 and for the trial; by default those of the data sets of `config`.
        max_drop: the loss of AP from which on the file is refused, see `assembly.export_check`.
        kept: modules that stay in float in int8.
        deformable: "operator" or "gather", see `export.deformable`; by default what the runtime has.

    Returns:
        `output`.

    Raises:
        InputError: the configuration, the weights or a setting cannot be used, a package is missing, or the file is
            refused.

    Example:
        engine.export("configs/bccd/atss_R_18_bccd.yaml", "model_final.pth", "model.onnx")
    """
    output = Path(output)
    format = format_of(output, format)
    check_precision(format, precision)
    cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
    _check(cfg, output, shape)
    if images is not None:
        find_images([images], recursive=True)  # raises here what would end the trial of the file
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.CHANNELS_LAST = "cpu", False
    cfg.freeze()
    with _beside(output) as place:  # first, since what cannot be written need not be computed
        import_modules(cfg.IMPORTS)
        file = read_weights(str(weights))
        follow_conventions(cfg, file)
        model = load_trained(cfg, file)
        card = build_card(cfg, file, shape, precision, resolve(str(weights)), model.selection.score_thresh)
        samples = calibration_samples(cfg, card, images) if precision == "int8" else ()
        write = lookup(EXPORT_FORMATS, format, "--format")
        get_logger(__name__).info("tracing the model, which may take a minute")
        write(build_graph(cfg, model, shape), card, place, ExportOptions(precision, samples, kept, deformable))
        try_file(cfg, str(weights), place, card, images, max_drop, precision)
    get_logger(__name__).info("written to %s", output)
    return output


def _check(cfg: CfgNode, output: Path, shape: FixedShape) -> None:
    """Raise an `InputError` for what can be refused before the weights are read."""
    if cfg.TEST.BBOX_AUG.ENABLED:
        raise InputError(
            "TEST.BBOX_AUG.ENABLED: test-time augmentation cannot be exported; set it to False (tiles can be exported)"
        )
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file")
    if shape.image_size and is_tiled(cfg):
        raise InputError(
            "--image-size fixes the size of whole images, but TILING cuts them into tiles; remove one of the two"
        )
    if shape.image_size and shape.input_size:
        raise InputError(
            "--image-size and --input-size exclude each other: with the former the network scales images itself"
        )


def build_graph(cfg: CfgNode, model: GeneralizedRCNN, shape: FixedShape) -> DetectionGraph:
    """The network of `model`, ready to be written."""
    scaling = None
    if shape.image_size:
        seen = resized_size(shape.image_size, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        scaling = Scaling(shape.image_size, seen, is_rounded=not cfg.INPUT.VALUE_RANGE)
    return DetectionGraph(fold_norms(model), build_normalize(cfg), scaling).eval()


def build_card(
    cfg: CfgNode, file: WeightFile, shape: FixedShape, precision: str, weights: Path, score_thresh: float
) -> ModelCard:
    """What the file says about itself; `score_thresh` is that of the model's own selection, for merging tiles."""
    value_range = tuple(cfg.INPUT.VALUE_RANGE) or None
    facts: dict[str, Any] = {
        "architecture": [part for part in (body_name(cfg), neck_name(cfg), dense_name(cfg)) if part],
        "precision": precision,
        "mean": list(cfg.INPUT.PIXEL_MEAN),
        "std": list(cfg.INPUT.PIXEL_STD),
        "to_bgr255": cfg.INPUT.TO_BGR255,
        "weights": weights.name,
        "sha256": sha256(weights),
        "engine": engine_version(),
        "torch": torch.__version__,
    }
    return ModelCard(
        class_names=tuple(file.class_names or [f"class {k + 1}" for k in range(num_classes(cfg))]),
        thresholds={name: max(limit - MARGIN, 0.0) for name, limit in usable_thresholds(file.thresholds).items()},
        default_threshold=DEFAULT_THRESHOLD,
        images=ImageRule(
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            channels=cfg.INPUT.CHANNELS,
            value_range=value_range,
            orientation=cfg.INPUT.ORIENTATION,
            box_extent=build_convention(cfg).extent,
            pixels="float32" if value_range else "uint8",
        ),
        shape=shape,
        tiles=_tiles(cfg, score_thresh),
        facts=facts,
        inference_precision=INFERENCE_PRECISION[precision],
    )


def _tiles(cfg: CfgNode, score_thresh: float) -> TileRule | None:
    if not is_tiled(cfg):
        return None
    tiling = build_tiling(cfg)
    parameters = dict(build_tile_merge(cfg, score_thresh).keywords)
    return TileRule(tiling.size, tiling.overlap, tiling.keep_full, build_fill(cfg), cfg.TILING.MERGE_TYPE, parameters)


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A path of the same name in a new folder beside `output`; what stands there then takes its place.

    If the block fails, nothing stays: neither what it wrote nor folders that were made for it.
    """
    folder = output.with_name(f".{output.name}.{uuid.uuid4().hex}.tmp")
    created: list[Path] = []
    try:
        created = [each for each in folder.parents if not each.exists()]
        folder.mkdir(parents=True)
        yield folder / output.name
        # The file itself comes last, and an old one goes first, so that it never stands beside what belongs to another.
        written = sorted(folder.iterdir(), key=lambda each: each.name == output.name)
        if len(written) > 1:
            output.unlink(missing_ok=True)
        for path in written:
            os.replace(path, output.with_name(path.name))
    except OSError as error:
        raise InputError(why_not_written(output, error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # a folder that is not empty stays
            for each in created:
                each.rmdir()
