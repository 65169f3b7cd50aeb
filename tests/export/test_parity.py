"""Every kind of model in every runtime: what an exported file finds is what the model finds."""

from __future__ import annotations

from pathlib import Path

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

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

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
FIXED = FixedShape(batch_size=1, input_size=(96, 128))
OFTEN = {("RetinaNet", "fixed"), ("ATSS dcnv2", "fixed"), ("Cascade DCN", "fixed")}
"""Files that every run of the tests writes. The nightly run writes all; one of open sizes takes half a minute."""
FILES = [
    pytest.param(name, kind, id=f"{name}, {kind}", marks=[] if (name, kind) in OFTEN else [pytest.mark.nightly])
    for name in MODELS
    for kind in ("dynamic", "fixed")
]


def model_of(name: str) -> GeneralizedRCNN:
    path, settings = MODELS[name]
    return lively_model(path, **settings)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, name: str, kind: str) -> Path:
    """A folder with model.onnx and model.xml."""

    def make(folder: Path) -> None:
        import onnx

        from engine.export import openvino
        from engine.export.onnx_writer import to_onnx

        shape = FIXED if kind == "fixed" else FixedShape()
        card = ModelCard(("a", "b", "c"), {}, 0.0, ImageRule(96, 128), shape)
        model = to_onnx(DetectionGraph(model_of(name), NORMALIZE).eval(), card)
        onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
        onnx.save(model, folder / "model.onnx")
        openvino.save(openvino.convert(folder / "model.onnx"), card, folder / "model.xml")

    label = f"parity {name} {kind}"
    made_once(tmp_path_factory, label, make)
    root = tmp_path_factory.getbasetemp()
    return next(each for each in (root / label, root.parent / label) if each.exists())


@pytest.mark.parametrize("runtime", ["onnx", "xml"])
@pytest.mark.parametrize(("name", "kind"), FILES, scope="module")
def test_files_find_what_the_model_finds(files: Path, name: str, kind: str, runtime: str) -> None:
    network, _ = open_network(files / f"model.{runtime}", threads=1)
    model = model_of(name)
    calls = [noise((96, 128))]
    if kind == "dynamic":
        calls += [noise((96, 128), (128, 70)), noise((150, 64), (33, 40), (97, 129))]
    most = 0
    for images in calls:
        with torch.no_grad():
            expected = model.detect([NORMALIZE.pixels(image.permute(2, 0, 1)) for image in images])
        compare(network(*(each.numpy() for each in padded(images))), expected)
        most = max(most, *(len(each) for each in expected))
    assert most > 20, "a model that finds nothing proves nothing"
