"""The precisions of exported files: what each means in a format, and why a format refuses one. Imports no torch."""

from __future__ import annotations

from engine.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
INFERENCE_PRECISION = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> `ModelCard.inference_precision`. fp16 halves the file; CPUs compute in float32 from it."""

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
