"""OpenVINO models: from ONNX, with the card in the rt_info of the model, which survives saving."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.export.deformable import with_deformable
from engine.export.formats import EXPORT_FORMATS, ExportOptions
from engine.export.graph import DetectionGraph
from engine.export.onnx_writer import onnx_library, to_onnx
from engine.export.openvino_ops import add_conversions
from engine.export.quantize import quantize_openvino
from engine.runtime.card import CARD_KEY, ModelCard

if TYPE_CHECKING:
    import openvino


@EXPORT_FORMATS.register("openvino")
def write_openvino(graph: DetectionGraph, card: ModelCard, path: Path, options: ExportOptions) -> None:
    """PATH.xml and PATH.bin, by way of ONNX; errors as for `write_onnx` and `convert`."""
    openvino_library()
    onnx_file = path.with_suffix(".onnx")
    network = with_deformable(lambda: to_onnx(graph, card), options.deformable, lambda: True)
    onnx_library().save_model(network, str(onnx_file))
    model = convert(onnx_file)
    if options.precision == "int8":
        model = quantize_openvino(model, options.samples, options.kept)
    if options.precision == "bf16":
        keep_regions_exact(model)
    save(model, card, path, half=options.precision == "fp16")
    onnx_file.unlink()


def convert(onnx_file: Path) -> openvino.Model:
    """The network of an ONNX file, without the metadata, which conversion drops.

    Raises:
        InputError: OpenVINO is not installed or has not all of its operators.
    """
    library = openvino_library()
    core = library.Core()
    add_conversions(core)
    try:
        model = core.read_model(str(onnx_file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"OpenVINO {library.__version__} cannot convert the model: {reason}; use --format onnx"
        ) from None
    _state_box_sides(model)
    return model


def _state_box_sides(model: openvino.Model) -> None:
    """Makes sure that suppression sees four numbers per box: its kernel refuses a number that only a run would tell.

    NNCF infers shapes anew and does not find it behind the gathering of proposals.
    """
    ops = importlib.import_module("openvino.opset13")
    for operator in model.get_ops():
        if operator.get_type_name() == "NonMaxSuppression":
            rows = ops.reshape(operator.input_value(0), [0, -1, 4], special_zero=True)  # (N, P, 4)
            operator.input(0).replace_source_output(rows.output(0))


def keep_regions_exact(model: openvino.Model) -> None:
    """Gives `model` an output of one number for each table of regions that features are cut out of.

    OpenVINO keeps what leads to an output in float32, up to the layers before it. Elsewhere bfloat16 would round the
    corners of regions by up to two pixels: with these outputs a Cascade lost 0.002 AP in place of 0.009.
    """
    ops = importlib.import_module("openvino.opset13")
    regions = [operator.input_value(1) for operator in model.get_ops() if operator.get_type_name() == "ROIAlign"]
    model.add_results([ops.result(ops.reduce_max(each, [0, 1])) for each in regions])  # each is (P, 4)


def save(model: openvino.Model, card: ModelCard, path: Path, half: bool = False) -> None:
    """Write PATH.xml and its .bin, which are one model, into a folder where no one looks for them yet.

    Args:
        half: store the weights in float16; they are read as float32 again.
    """
    model.set_rt_info(card.to_json(), [CARD_KEY])
    openvino_library().save_model(model, str(path), compress_to_fp16=half)


def openvino_library() -> ModuleType:
    try:
        return importlib.import_module("openvino")
    except ImportError:
        raise InputError("--format openvino needs OpenVINO: pip install 'engine[export]'") from None
