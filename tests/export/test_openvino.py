from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.export.openvino import convert, keep_regions_exact, save
from engine.runtime.card import CARD_KEY, ImageRule, ModelCard
from engine.runtime.card_file import write_card
from tests.export.small_network import pictures, small_network

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")

CARD = ModelCard(("a \"<&>' b", "破洞\n\tx"), {"破洞\n\tx": 0.25}, 0.3, ImageRule(320, 400), facts={"key": [1, None]})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> openvino.Model:
    path = tmp_path_factory.mktemp("openvino") / "small.onnx"
    onnx.save(small_network(), path)
    return convert(path)


def card_of(path: Path) -> ModelCard:
    model = openvino.Core().read_model(str(path))
    return ModelCard.from_json(str(model.get_rt_info([CARD_KEY]).value), str(path))


def outputs(path: Path) -> np.ndarray:
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"images": pictures(1)[0]["images"]})["scores"]


def test_the_card_survives_saving_and_can_be_replaced(network: openvino.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    save(network, CARD, path)
    weights, scores = path.with_suffix(".bin").read_bytes(), outputs(path)
    assert card_of(path) == CARD
    other = replace(CARD, thresholds={"破洞\n\tx": 0.75}, facts={})
    write_card(path, other)
    assert card_of(path) == other
    assert path.with_suffix(".bin").read_bytes() == weights
    np.testing.assert_array_equal(outputs(path), scores)


def test_float16_halves_the_weights(network: openvino.Model, tmp_path: Path) -> None:
    for name, half in (("full", False), ("half", True)):
        save(network, CARD, tmp_path / f"{name}.xml", half)
    full, half = ((tmp_path / f"{name}.bin").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    np.testing.assert_allclose(outputs(tmp_path / "half.xml"), outputs(tmp_path / "full.xml"), atol=2e-3)


def test_a_model_of_another_maker_has_no_card_to_replace(network: openvino.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    openvino.save_model(network.clone(), str(path))
    path.write_text(path.read_text(encoding="utf-8").replace(f"<{CARD_KEY} ", "<other "), encoding="utf-8")
    with pytest.raises(InputError, match=f"{path}: not exported by this engine"):
        write_card(path, CARD)


def test_what_openvino_cannot_convert_is_one_line(tmp_path: Path) -> None:
    model = small_network()
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Strange", "engine"
    model.opset_import.append(onnx.helper.make_opsetid("engine", 1))
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"^OpenVINO .* cannot convert the model: .*Strange.*; use --format onnx$"):
        convert(path)


def test_suppression_is_told_that_a_box_has_four_sides(tmp_path: Path) -> None:
    """The kernel does not compile otherwise; NNCF loses this number behind a gathering of boxes."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nms = helper.make_node("NonMaxSuppression", ["boxes", "scores", "limit", "iou"], ["kept"], name="nms")
    to_tensor = onnx.numpy_helper.from_array
    constants = [to_tensor(np.int64([10]), "limit"), to_tensor(np.float32([0.5]), "iou")]
    inputs = [
        helper.make_tensor_value_info("boxes", floats, ["N", "P", "sides"]),
        helper.make_tensor_value_info("scores", floats, ["N", "K", "P"]),
    ]
    outputs = [helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, ["S", 3])]
    graph = helper.make_graph([nms], "nms", inputs, outputs, constants)
    path = tmp_path / "nms.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    compiled = openvino.Core().compile_model(convert(path), "CPU")
    found = compiled({"boxes": np.float32([[[0, 0, 4, 4], [5, 5, 9, 9]]]), "scores": np.float32([[[0.5, 0.75]]])})
    assert found["kept"].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_regions_have_outputs_so_that_they_stay_in_float32() -> None:
    ops = openvino.opset13
    features = ops.parameter([1, 2, 8, 8], np.float32, name="features")
    regions = ops.parameter([-1, 4], np.float32, name="regions")
    pooled = ops.roi_align(features, regions, np.int64([0]), 2, 2, 2, 1.0, "avg")
    model = openvino.Model([ops.result(pooled)], [features, regions], "pooling")
    keep_regions_exact(model)
    compiled = openvino.Core().compile_model(model, "CPU")
    found = compiled({"features": np.ones((1, 2, 8, 8), np.float32), "regions": np.float32([[1, 2, 5, 6]])})
    assert [found[index].shape for index in range(2)] == [(1, 2, 2, 2), ()]
    assert found[1] == 6.0
