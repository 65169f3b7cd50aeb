"""The precisions of exported files: what each means in a format, and why a format refuses one. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from engine.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
INFERENCE_PRECISION = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> `ModelCard.inference_precision`. fp16 halves the file; CPUs compute in float32 from it."""

SUFFIXES = {
    "onnx": (".onnx",),
    "openvino": (".xml",),
    "torchscript": (".torchscript", ".ts"),
    "torch-export": (".pt2",),
}
"""Format -> endings of its files, the usual one first."""
INSTEAD = "use --format openvino"
REFUSED = {
    ("onnx", "fp16"): f"ONNX Runtime computes half floats in float32 on CPUs, so it would only lose digits; {INSTEAD}",
    ("onnx", "bf16"): f"ONNX Runtime has no bfloat16 kernels for CPUs; {INSTEAD}",
    **{
        (name, precision): f"a file of torch holds float32 weights; {INSTEAD}, or --format onnx for int8"
        for name in ("torchscript", "torch-export")
        for precision in PRECISIONS[1:]
    },
}
"""(format, precision) -> why there is no such file."""


def format_of(output: Path, format_name: str = "") -> str:
    """The format of a file to be written, from its name unless `format_name` says it.

    Raises:
        InputError: the name has no ending of a format, or that of another one.

    Example:
        >>> format_of(Path("line.onnx")), format_of(Path("line.pt2"), "torch-export")
        ('onnx', 'torch-export')
    """
    endings = {ending: name for name, all_endings in SUFFIXES.items() for ending in all_endings}
    found = endings.get(output.suffix.lower())
    if format_name and format_name not in SUFFIXES:
        raise InputError(f"--format {format_name} is not known; there are {', '.join(SUFFIXES)}")
    if found is None or found != (format_name or found):
        wanted = " or ".join(SUFFIXES[format_name] if format_name else endings)
        raise InputError(f"--output {output}: its name must end in {wanted}")
    return found


def check_precision(format_name: str, precision: str) -> None:
    """Raise the `InputError` that says why `format_name` has no files of `precision`.

    Example:
        >>> check_precision("openvino", "bf16")
        >>> check_precision("onnx", "bf16")
        Traceback (most recent call last):
            ...
        engine.errors.InputError: --precision bf16: ONNX Runtime has no bfloat16 kernels for CPUs; use --format openvino
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision} is not known; there are {', '.join(PRECISIONS)}")
    if reason := REFUSED.get((format_name, precision)):
        raise InputError(f"--precision {precision}: {reason}")
