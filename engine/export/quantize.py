"""8-bit integers in place of the floats of a network, by NNCF, with ranges measured on real images."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from engine.errors import InputError, listed
from engine.export.float_layers import OperatorGraph, float_operators, unknown_modules
from engine.export.operators import onnx_operators, openvino_operators

if TYPE_CHECKING:
    import onnx
    import openvino

Network = TypeVar("Network")
Sample = Mapping[str, np.ndarray]
"""What a network takes, by name: `images` uint8 (1, H, W, C), `sizes` int64 (1, 2)."""


def quantize_openvino(model: openvino.Model, samples: Sequence[Sample], kept: Sequence[str] = ()) -> openvino.Model:
    """A copy of `model` that computes in int8, see `float_operators` for what stays in float.

    Args:
        samples: of real images, prepared as those that the network will see.
        kept: modules that stay in float, too.

    Raises:
        InputError: one of `kept` has no layer, or NNCF is not installed.
    """
    names = [port.get_any_name() for port in model.inputs]  # conversion drops inputs that nothing reads
    samples = [{name: sample[name] for name in names} for sample in samples]
    return _quantized(model, openvino_operators(model), samples, kept)


def quantize_onnx(model: onnx.ModelProto, samples: Sequence[Sample], kept: Sequence[str] = ()) -> onnx.ModelProto:
    """As `quantize_openvino`: pairs of QuantizeLinear and DequantizeLinear stand around what computes in int8."""
    return _quantized(model, onnx_operators(model), samples, kept)


def _quantized(model: Network, graph: OperatorGraph, samples: Sequence[Sample], kept: Sequence[str]) -> Network:
    if unknown := unknown_modules(kept, graph.weights):
        raise InputError(
            f"no layer of the model is in {listed(unknown)}; name modules such as rpn.head or backbone.fpn"
        )
    nncf = _import_nncf()
    # Some shape arithmetic, which NNCF leaves out by itself, is unknown to it: hence no validation of the names.
    ignored = nncf.IgnoredScope(names=sorted(float_operators(graph, kept)), validate=False)
    output = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with redirect_stdout(output):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([dict(sample) for sample in samples]),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(samples),
            ignored_scope=ignored,
        )


def _import_nncf() -> ModuleType:
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers, unasked
    logger_class = logging.getLoggerClass()
    try:
        import nncf
    except ImportError:
        raise InputError("--precision int8 needs NNCF: pip install 'engine[export]'") from None
    finally:
        logging.setLoggerClass(logger_class)  # which it replaces for the whole process
    nncf.set_log_level(logging.WARNING)
    return nncf
