from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from engine.export.deformable import onnxruntime_has_kernel, with_deformable
from engine.layers.deform_conv import DeformConv2d

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


def layer() -> DeformConv2d:
    torch.manual_seed(0)
    made = DeformConv2d(4, 6, 3, 2, groups=2, deformable_groups=2, bias=True)
    torch.nn.init.normal_(made.offset.weight, std=0.3)
    return made.eval()


def express() -> Any:
    open_axes = ({axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)},)
    return torch.onnx.export(
        layer(), (torch.randn(2, 4, 9, 12),), dynamo=True, dynamic_shapes=open_axes, opset_version=20, verbose=False
    ).model_proto


@pytest.fixture(scope="module")
def forms() -> dict[str, Any]:
    """The layer as the operator and by gathering."""
    return {form: with_deformable(express, form, lambda: True) for form in ("operator", "gather")}


@pytest.mark.parametrize("form", ["operator", "gather"])
def test_both_forms_equal_the_layer_in_both_runtimes(forms: dict[str, Any], form: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    from engine.export.openvino_ops import add_conversions

    model = forms[form]
    assert ("DeformConv" in {node.op_type for node in model.graph.node}) == (form == "operator")
    x = torch.randn(3, 4, 14, 11)
    expected = layer()(x).detach().numpy()
    data = model.SerializeToString()
    found = runtime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    core = openvino.Core()
    add_conversions(core)
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([x.numpy()])[0], expected, atol=1e-5)


def test_auto_gathers_only_without_a_kernel_and_says_so(forms: dict[str, Any], caplog: Any) -> None:
    made = []

    def express() -> Any:
        from engine.layers.deform_conv import _is_gathered

        made.append("gather" if _is_gathered.get() else "operator")
        return forms[made[-1]]

    with caplog.at_level(logging.WARNING, "engine"):
        assert with_deformable(express, "auto", lambda: True) is forms["operator"]
        assert not caplog.records
        assert with_deformable(express, "auto", lambda: False) is forms["gather"]
    assert "written as gathering" in caplog.text
    assert made == ["operator", "operator", "gather"]


def test_the_runtime_is_asked_for_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert onnxruntime_has_kernel()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("NOT_IMPLEMENTED : Could not find an implementation for DeformConv(19)")

    monkeypatch.setattr(runtime, "InferenceSession", refuse)
    assert not onnxruntime_has_kernel()
