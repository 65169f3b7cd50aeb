"""A small exported file made by hand, which finds four quarters of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.runtime.card import CARD_KEY, FixedShape, ImageRule, ModelCard

NAMES = ("hole", "stain")
SCORES = np.float32([0.9, 0.6, 0.4, 0.2])
LABELS = np.int64([0, 1, 0, 1])
SHARES = np.float32([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.25, 0.25, 0.75, 0.75]])
"""Boxes as shares of the width and height."""

CARD = ModelCard(
    class_names=NAMES, thresholds={"hole": 0.5}, default_threshold=0.3, images=ImageRule(min_size=16, max_size=64)
)


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return CARD


def write_onnx(path: Path, card: ModelCard | None = CARD, changes: Callable[[Any], None] = lambda model: None) -> Path:
    """A network whose scores are `SCORES` times the largest value of the image over 255.

    `changes` alter the model before it is written.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    pixels = TensorProto.FLOAT if card is not None and card.images.pixels == "float32" else TensorProto.UINT8
    batch = (card and card.shape.batch_size) or "N"
    height, width = (card and (card.shape.input_size or card.shape.image_size)) or ("H", "W")
    channels = card.images.channels if card else 3
    constants = {
        "shares": SHARES,
        "scores_of_white": SCORES,
        "labels_of_all": LABELS[None],
        "all": np.int64([4]),
        "axes": np.int64([1, 2, 3]),
        "xy": np.int64([1, 0, 1, 0]),
        "two": np.int64([2]),
        "white": np.float32(255),
    }
    nodes = [
        ("Cast", ["images"], ["bright"], {"to": TensorProto.FLOAT}),
        ("ReduceMax", ["bright", "axes"], ["highest"], {"keepdims": 0}),  # (N,)
        ("Div", ["highest", "white"], ["share"], {}),
        ("Unsqueeze", ["share", "last"], ["column"], {}),  # (N, 1)
        ("Mul", ["column", "scores_of_white"], ["scores"], {}),
        ("Cast", ["sizes"], ["sides"], {"to": TensorProto.FLOAT}),
        ("Gather", ["sides", "xy"], ["corners"], {"axis": 1}),  # (N, 4)
        ("Unsqueeze", ["corners", "last"], ["far"], {}),  # (N, 4, 1)
        ("Transpose", ["far"], ["frames"], {"perm": [0, 2, 1]}),  # (N, 1, 4)
        ("Mul", ["frames", "shares"], ["boxes"], {}),
        ("Shape", ["scores"], ["shape"], {}),
        ("Expand", ["labels_of_all", "shape"], ["labels"], {}),
        ("Mul", ["count_of_one", "all"], ["count"], {}),
        ("Shape", ["share"], ["num"], {}),
        ("Expand", ["count", "num"], ["counts"], {}),
    ]
    constants |= {"last": np.int64([-1]), "count_of_one": np.int64([1])}
    del constants["two"]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs, **options) for kind, inputs, outputs, options in nodes],
        "quarters",
        [
            helper.make_tensor_value_info("images", pixels, [batch, height, width, channels]),
            helper.make_tensor_value_info("sizes", TensorProto.INT64, [batch, 2]),
        ],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 4, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, 4]),
            helper.make_tensor_value_info("counts", TensorProto.INT64, [batch]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if card is not None:
        helper.set_model_props(model, {"made by": "hand", CARD_KEY: card.to_json()})
    changes(model)
    path.write_bytes(model.SerializeToString())
    assert onnx.load(path).graph.name == "quarters"
    return path


def write_openvino(path: Path, card: ModelCard | None = CARD) -> Path:
    """The same network as an OpenVINO model."""
    openvino = pytest.importorskip("openvino")
    model = openvino.convert_model(write_onnx(path.with_suffix(".onnx"), card))
    if card is not None:
        model.set_rt_info(card.to_json(), [CARD_KEY])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


WRITERS = {"onnx": write_onnx, "xml": write_openvino}


@pytest.fixture(params=["onnx", "xml"])
def write(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write(card) -> an exported file of each format, made once, not to be changed."""

    def write_one(card: ModelCard = CARD) -> Path:
        key = card.to_json(), request.param
        if key not in _written:
            _written[key] = WRITERS[request.param](tmp_path_factory.mktemp("exported") / f"model.{request.param}", card)
        return _written[key]

    return write_one


_written: dict[tuple[str, str], Path] = {}


def with_shape(card: ModelCard, **shape: Any) -> ModelCard:
    return replace(card, shape=FixedShape(**shape))
