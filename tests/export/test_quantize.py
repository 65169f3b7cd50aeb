from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.export.openvino import convert
from engine.export.operators import onnx_operators, openvino_operators
from engine.export.quantize import quantize_onnx, quantize_openvino
from tests.export.small_network import CENTER, LOGITS, STEM, TOWER, pictures, small_network

pytest.importorskip("nncf")
onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
onnxruntime = pytest.importorskip("onnxruntime")

WEIGHTS = {f"{name}.weight" for name in (STEM, TOWER, LOGITS, CENTER)}


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_network(), path)
    return path


def test_operators_know_their_parameters(network_file: Path) -> None:
    for graph in (onnx_operators(small_network()), openvino_operators(convert(network_file))):
        assert set(graph.weights.values()) == WEIGHTS
        by_weight = {weight: name for name, weight in graph.weights.items()}
        after = graph.reachable([by_weight[f"{TOWER}.weight"]]) & graph.weights.keys()
        assert {graph.weights[name] for name in after} == {
            f"{LOGITS}.weight",
            f"{CENTER}.weight",
        }


def int8_layers_of_onnx(model: onnx.ModelProto) -> set[str]:
    """Convolutions whose weights are dequantized integers."""
    dequantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    return {node.output[0] for node in convs if node.input[1] in dequantized}


def int8_layers_of_openvino(model: openvino.Model) -> set[str]:
    """Convolutions whose input is rounded to one of 256 values."""
    convs = [op for op in model.get_ops() if op.get_type_name() == "Convolution"]
    quantized = [op for op in convs if op.input_value(0).get_node().get_type_name() == "FakeQuantize"]
    return {name for op in quantized for name in (STEM, TOWER, LOGITS, CENTER) if name in op.get_friendly_name()}


def test_predictions_stay_in_float_and_the_rest_agrees(network_file: Path) -> None:
    samples, tested = pictures(12), pictures(3, seed=2)
    exact = onnxruntime.InferenceSession(small_network().SerializeToString())
    in_onnx = quantize_onnx(small_network(), samples)
    in_openvino = quantize_openvino(convert(network_file), samples)
    assert int8_layers_of_onnx(in_onnx) == int8_layers_of_openvino(in_openvino) == {STEM, TOWER}

    session = onnxruntime.InferenceSession(in_onnx.SerializeToString())
    compiled = openvino.Core().compile_model(in_openvino, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for sample in tested:
        expected = exact.run(["scores", "center"], sample)
        spread = np.ptp(expected[1])
        for found in (session.run(["scores", "center"], sample), compiled({"images": sample["images"]})):
            scores, center = found if isinstance(found, list) else (found["scores"], found["center"])
            np.testing.assert_allclose(scores, expected[0], atol=0.02)
            assert np.abs(center - expected[1]).mean() < 0.03 * spread
            assert not np.array_equal(center, expected[1])


def test_named_modules_stay_in_float(network_file: Path) -> None:
    assert int8_layers_of_onnx(quantize_onnx(small_network(), pictures(3), ["rpn.head"])) == {STEM}
    with pytest.raises(InputError, match="no layer of the model is in 'rpn.neck'"):
        quantize_openvino(convert(network_file), pictures(3), ["rpn.neck"])
