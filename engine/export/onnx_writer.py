"""ONNX files, for ONNX Runtime and most others.

Shapes: N images, P candidates of each, K classes, S boxes that survive suppression.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import InputError, printable
from engine.export.deformable import onnxruntime_has_kernel, with_deformable
from engine.export.formats import EXPORT_FORMATS, ExportOptions, example_inputs, open_axes
from engine.export.graph import DetectionGraph
from engine.export.quantize import quantize_onnx
from engine.export.suppression import LOWEST_SCORE, NO_SCORE, suppress_as_one
from engine.runtime.card import CARD_KEY, ModelCard
from engine.runtime.networks import INPUTS, OUTPUTS

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""DeformConv exists from 19 on."""
MOST_BYTES = 2_000_000_000
"""Of weights: an ONNX file without others beside it ends at 2 GiB."""


@EXPORT_FORMATS.register("onnx")
def write_onnx(graph: DetectionGraph, card: ModelCard, path: Path, options: ExportOptions) -> None:
    """One file, with the card in its metadata.

    Raises:
        InputError: the packages are not installed, the model is too large or cannot be expressed in ONNX.
    """
    model = with_deformable(lambda: to_onnx(graph, card), options.deformable, onnxruntime_has_kernel)
    if options.precision == "int8":
        model = quantize_onnx(model, options.samples, options.kept)
    library = onnx_library()
    library.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    library.checker.check_model(model)
    library.save_model(model, str(path))


def to_onnx(graph: DetectionGraph, card: ModelCard) -> onnx.ModelProto:
    """The network as ONNX, with the open axes of the card; errors as for `write_onnx`."""
    library = onnx_library()
    weights = sum(each.numel() * each.element_size() for each in graph.state_dict().values())
    if weights > MOST_BYTES:
        raise InputError(
            f"the weights take {weights / 1e9:.1f} GB, but an ONNX file holds 2 GB at most; use --format torch-export"
        )
    shapes = tuple(dict(axes) for axes in open_axes(card))
    plain, graph.suppress = graph.suppress, suppress_as_one
    try:
        with explained("ONNX"):
            program = torch.onnx.export(
                graph,
                example_inputs(graph, card),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes if any(shapes) else None,
                input_names=INPUTS,
                output_names=OUTPUTS,
                custom_translation_table=translations(),
                verbose=False,
            )
    finally:
        graph.suppress = plain
    model = program.model_proto
    for output in model.graph.output:
        axes = output.type.tensor_type.shape.dim
        if len(axes) > 1 and not axes[1].dim_value:
            axes[1].dim_param = "detections"
    library.checker.check_model(model)
    return model


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The operators that torch's exporter does not know, in ONNX."""
    from onnxscript import opset20 as op

    def class_nms(boxes: Any, scores: Any, labels: Any, num_classes: int, iou_thresh: float) -> Any:
        if not 0 < iou_thresh < 1:  # none is suppressed
            return op.Greater(scores, op.Constant(value_float=LOWEST_SCORE))
        classes = op.Unsqueeze(op.Constant(value_ints=list(range(num_classes))), op.Constant(value_ints=[0, 2]))
        is_of_class = op.Equal(op.Unsqueeze(labels, op.Constant(value_ints=[1])), classes)  # (N, K, P)
        none = op.Constant(value_float=NO_SCORE)
        by_class = op.Where(is_of_class, op.Unsqueeze(scores, op.Constant(value_ints=[1])), none)  # (N, K, P)
        limit, thresh = op.Shape(scores, start=1), op.Constant(value_floats=[iou_thresh])
        kept = op.NonMaxSuppression(boxes, by_class, limit, thresh, op.Constant(value_floats=[LOWEST_SCORE]))  # (S, 3)
        rows = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)  # (S, 2): image and box
        zeros = op.Expand(op.Constant(value_int=0), op.Shape(scores))
        ones = op.Expand(op.Constant(value_int=1), op.Shape(rows, end=1))
        return op.Cast(op.ScatterND(zeros, rows, ones), to=BOOL)  # (N, P)

    def sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        return op.TopK(x, op.Shape(x, start=dim, end=dim + 1), axis=dim, largest=int(descending))  # it is stable

    return {torch.ops.engine.class_nms.default: class_nms, torch.ops.aten.sort.stable: sort}


BOOL = 9
"""The number of the type in ONNX."""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what torch says of a model that it cannot export to the format `name` into one line, and keeps it quiet."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # of many kinds, from the code of the model as well
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = printable(" ".join(str(cause).split()))[:300]
        raise InputError(
            f"torch {torch.__version__} cannot export this model to {name} ({type(cause).__name__}: {reason}); "
            "the exporter is known to work with torch 2.14"
        ) from error
    finally:
        logger.setLevel(level)


def onnx_library() -> Any:
    try:
        importlib.import_module("onnxscript")
        return importlib.import_module("onnx")
    except ImportError:
        raise InputError("--format onnx needs the packages onnx and onnxscript: pip install 'engine[export]'") from None
