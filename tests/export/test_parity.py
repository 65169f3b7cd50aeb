"""Every kind of model in every runtime: what an exported file finds is what the model finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.transforms import Normalize
from engine.export.graph import DetectionGraph
from engine.modeling.detector import GeneralizedRCNN
from engine.runtime.card import CARD_KEY, FixedShape, ImageRule, ModelCard
from engine.runtime.networks import open_network
from tests.conftest import made_once
from tests.export.comparison import compare
from tests.export.lively import lively_model
from tests.export.test_graph import noise, padded

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from engine.export import openvino  # noqa: E402

MODELS = {
    "ATSS": ("atss/atss_R_50_FPN_1x.yaml", {}),
    "ATSS dcnv2": ("atss/atss_dcnv2_R_50_FPN_1x.yaml", {}),
    "RetinaNet": ("retinanet/retinanet_R_50_FPN_1x.yaml", {}),
    "FCOS": ("fcos/fcos_R_50_FPN_1x.yaml", {}),
    "Faster": ("faster/faster_R_50_FPN_1x.yaml", {}),
    "Cascade": ("cascade/cascade_R_50_FPN_1x.yaml", {}),
    "Cascade DCN": ("cascade/cascade_dcn_R_50_FPN_1x.yaml", {}),
}
NORMALIZE = Normalize((100.0, 110.0, 120.0), (1.0, 1.0, 1.0), True)
SIZE = (96, 128)
SHAPES = {"dynamic": FixedShape(), "fixed": FixedShape(1, SIZE), "two": FixedShape(2, SIZE)}
CALLS = {
    "dynamic": [[SIZE], [SIZE, (128, 70)], [(150, 64), (33, 40), (97, 129)], [(1, 1)]],
    "fixed": [[SIZE]],
    "two": [[SIZE, (64, 70)]],
}
"""Sizes of the images of each call. In a second image of `SIZE` torch alone finds other boxes than in a batch (Cascade
DCN), since its scores are too close to each other."""
OFTEN = {("RetinaNet", "dynamic"), ("Faster", "dynamic"), ("ATSS dcnv2", "two"), ("Cascade DCN", "fixed")}
"""Files that every run of the tests writes; the nightly run writes all. One of open sizes takes 20 s, others 10 s."""
FILES = [
    pytest.param(name, kind, id=f"{name}, {kind}", marks=[] if (name, kind) in OFTEN else [pytest.mark.nightly])
    for name in MODELS
    for kind in SHAPES
]


def model_of(name: str) -> GeneralizedRCNN:
    path, settings = MODELS[name]
    return lively_model(path, **settings)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, name: str, kind: str) -> Path:
    """A folder with model.onnx and model.xml, and silent.onnx and silent.xml, whose classes score nothing."""

    def make(folder: Path) -> None:
        from engine.export.onnx_writer import to_onnx

        card = ModelCard(("a", "b", "c"), {}, 0.0, ImageRule(*SIZE), SHAPES[kind])
        model = to_onnx(DetectionGraph(model_of(name), NORMALIZE).eval(), card)
        write(model, card, folder / "model")
        silence(model)
        write(model, card, folder / "silent")

    label = f"parity {name} {kind}"
    made_once(tmp_path_factory, label, make)
    root = tmp_path_factory.getbasetemp()
    return next(each for each in (root / label, root.parent / label) if each.exists())


def write(model: onnx.ModelProto, card: ModelCard, stem: Path) -> None:
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, stem.with_suffix(".onnx"))
    openvino.save(openvino.convert(stem.with_suffix(".onnx")), card, stem.with_suffix(".xml"))


def silence(model: onnx.ModelProto) -> None:
    """Give the layers that score classes a bias by which nothing is found."""
    shapes = {each.name: each.dims for each in model.graph.initializer}
    for node in model.graph.node:
        layer = next((each for each in node.input if each.endswith(("cls_logits.weight", "cls_score.weight"))), "")
        if layer and node.op_type in ("Conv", "Gemm"):
            bias = np.full(shapes[layer][0], -1e4, np.float32)
            bias[-1] *= -1 if layer.endswith("cls_score.weight") else 1  # the last one is the background
            model.graph.initializer.append(onnx.numpy_helper.from_array(bias, f"{node.name} silent"))
            del node.input[2:]  # there is none where it was zero
            node.input.append(f"{node.name} silent")


@pytest.mark.parametrize("runtime", ["onnx", "xml"])
@pytest.mark.parametrize(("name", "kind"), FILES, scope="module")
def test_files_find_what_the_model_finds(files: Path, name: str, kind: str, runtime: str) -> None:
    network, _ = open_network(files / f"model.{runtime}", threads=1)
    model = model_of(name)
    most = 0
    for sizes in CALLS[kind]:
        images = noise(*sizes)
        with torch.no_grad():
            expected = model.detect([NORMALIZE.pixels(image.permute(2, 0, 1)) for image in images])
        compare(network(*(each.numpy() for each in padded(images))), expected)
        most = max(most, *(len(each) for each in expected))
    assert most > 20, "a model that finds nothing proves nothing"

    network, _ = open_network(files / f"silent.{runtime}", threads=1)
    boxes, scores, labels, counts = network(*(each.numpy() for each in padded(noise(*CALLS[kind][-1]))))
    number = len(CALLS[kind][-1])
    assert counts.tolist() == [0] * number
    assert (boxes.shape, scores.shape, labels.shape) == ((number, 0, 4), (number, 0), (number, 0))


@pytest.mark.parametrize(("name", "kind"), [("RetinaNet", "dynamic")], scope="module")
def test_open_axes_have_names(files: Path, name: str, kind: str) -> None:
    graph = onnx.load(str(files / "model.onnx")).graph
    axes = [[axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.input]
    assert axes == [["batch", "height", "width", 3], ["batch", 2]]
    assert [each.name for each in graph.output] == ["boxes", "scores", "labels", "counts"]
    assert all(each.type.tensor_type.shape.dim[1].dim_param == "detections" for each in list(graph.output)[:3])
