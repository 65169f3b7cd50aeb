"""The formats of torch: TorchScript for libtorch, and torch.export's for what compiles from it."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from engine.errors import InputError
from engine.export.formats import EXPORT_FORMATS, ExportOptions, example_inputs, open_axes
from engine.export.graph import DetectionGraph
from engine.export.onnx_writer import explained
from engine.runtime.card import CARD_KEY, ModelCard


@EXPORT_FORMATS.register("torchscript")
def write_torchscript(graph: DetectionGraph, card: ModelCard, path: Path, options: ExportOptions) -> None:
    """A trace, which holds for images of one size and number; `torchvision` must be imported before it is loaded.

    D is the number of all candidates: `counts` says which are detections. The card is an extra file.

    Raises:
        InputError: the sizes are not fixed, or the model cannot be traced.
    """
    if any(open_axes(card)):
        raise InputError("--format torchscript holds for one size: add --input-size H W --batch N, or use torch-export")
    with explained("TorchScript"):
        traced = torch.jit.trace(graph, example_inputs(graph, card), check_trace=False)
        content = io.BytesIO()
        torch.jit.save(traced, content, _extra_files={CARD_KEY: card.to_json()})
    path.write_bytes(content.getbuffer())  # here, so that a full disk is not taken for a fault of the model


@EXPORT_FORMATS.register("torch-export")
def write_torch_export(graph: DetectionGraph, card: ModelCard, path: Path, options: ExportOptions) -> None:
    """An exported program; `torchvision` must be imported before it is loaded. The card is an extra file.

    Raises:
        InputError: the model cannot be exported.
    """
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis, _ in axes} for axes in open_axes(card))
    with explained("torch.export"):
        program = torch.export.export(graph, example_inputs(graph, card), dynamic_shapes=shapes, strict=False)
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={CARD_KEY: card.to_json()})
    path.write_bytes(content.getbuffer())
