from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import InputError
from engine.export.precision import INFERENCE_PRECISION, PRECISIONS, check_precision


@pytest.mark.parametrize(
    ("format_name", "precision"),
    [("onnx", "fp32"), ("onnx", "int8"), *(("openvino", each) for each in PRECISIONS), ("torchscript", "fp32")],
)
def test_what_formats_have(format_name: str, precision: str) -> None:
    check_precision(format_name, precision)


@pytest.mark.parametrize(
    ("format_name", "precision", "words"),
    [
        ("onnx", "fp16", "--format openvino"),
        ("onnx", "bf16", "no bfloat16 kernels"),
        ("torchscript", "int8", "--format onnx"),
        ("torch-export", "bf16", "--format openvino"),
        ("openvino", "int4", "there are fp32, fp16, bf16, int8"),
    ],
)
def test_what_they_have_not_is_refused_with_what_to_do(format_name: str, precision: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"^--precision {precision}.*{words}"):
        check_precision(format_name, precision)


def test_every_precision_says_what_openvino_computes_in() -> None:
    assert set(INFERENCE_PRECISION) == set(PRECISIONS)


def test_words_are_checked_without_torch() -> None:
    code = "import sys, engine.export.precision; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
