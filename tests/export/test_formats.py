"""Exported files by the runtimes themselves: the same detections as the model they are made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.transforms import Normalize
from engine.errors import InputError
from engine.export.formats import EXPORT_FORMATS, ExportOptions, example_inputs, open_axes
from engine.export.graph import DetectionGraph
from engine.export.precision import format_of
from engine.registry import lookup
from engine.runtime.card import CARD_KEY, FixedShape, ImageRule, ModelCard
from engine.structures import Detections
from tests.export.comparison import compare
from tests.export.lively import lively_model
from tests.export.test_graph import SMALL_BODY, STAGES, noise, padded, trained_like

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_writer = pytest.importorskip("engine.export.onnx_writer")
torch_writers = pytest.importorskip("engine.export.torch_writers")
NORMALIZE = Normalize((100.0, 110.0, 120.0), (1.0, 1.0, 1.0), True)
FIXED = FixedShape(2, (96, 128))


def card_of(shape: FixedShape = FixedShape()) -> ModelCard:  # noqa: B008, it is immutable
    return ModelCard(("a", "b", "c"), {"a": 0.5}, 0.3, ImageRule(100, 200), shape)


def check_same(graph: DetectionGraph, found: list[np.ndarray], images: torch.Tensor, sizes: torch.Tensor) -> None:
    """`found` in a runtime is what the graph finds in torch, which is what the model finds (test_graph)."""
    with torch.no_grad():
        boxes, scores, labels, counts = graph(images, sizes)
    assert counts.min() > 0
    rows = [slice(count) for count in counts]
    compare(found, [Detections(boxes[i, row], scores[i, row], labels[i, row], (0, 0)) for i, row in enumerate(rows)])


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def run(session: onnxruntime.InferenceSession, images: torch.Tensor, sizes: torch.Tensor) -> list[np.ndarray]:
    return session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()})


SHALLOW = {
    "fcos": {"MODEL.FCOS.NUM_CONVS": "1"},
    "gfl": {"MODEL.DENSE.ARGS": "{'num_convs': 1}"},
    "vfnet": {"MODEL.DENSE.ARGS": "{'num_convs': 1}"},
    "tood": {"MODEL.DENSE.ARGS": "{'num_convs': 1}"},
    "dyhead": {"MODEL.NECK.ARGS": "{'num_blocks': 1}"},
    "pafpn": {"MODEL.ATSS.NUM_CONVS": "1"},
}
"""Torch's exporter takes a second for a few layers of a tower."""


@pytest.mark.parametrize("name", SHALLOW)
def test_every_dense_stage_runs_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    graph, _ = trained_like(STAGES[name], SMALL_BODY | SHALLOW[name])
    onnx_writer.write_onnx(graph, card_of(FIXED), tmp_path / "model.onnx", ExportOptions())
    images = padded(noise((96, 128), (64, 128)))
    check_same(graph, run(session_of(tmp_path / "model.onnx"), *images), *images)


@pytest.mark.parametrize("suffix", [".ts", ".pt2"])
@pytest.mark.parametrize("stages", ["one stage", "two stages"])
def test_formats_of_torch_find_the_same_and_keep_the_card(stages: str, suffix: str, tmp_path: Path) -> None:
    if stages == "one stage":
        graph, _ = trained_like("bccd/atss_R_18_bccd.yaml")
    else:
        graph = DetectionGraph(lively_model("faster/faster_R_50_FPN_1x.yaml"), NORMALIZE).eval()
    path, extra = tmp_path / f"model{suffix}", {CARD_KEY: ""}
    lookup(EXPORT_FORMATS, format_of(path), "format")(graph, card_of(FIXED), path, ExportOptions())
    if suffix == ".ts":
        loaded = torch.jit.load(str(path), _extra_files=extra)
    else:
        loaded = torch.export.load(str(path), extra_files=extra).module()
    text = extra[CARD_KEY]
    assert ModelCard.from_json(text if isinstance(text, str) else text.decode(), "model") == card_of(FIXED)
    images = padded(noise((96, 128), (64, 70)))
    check_same(graph, [each.detach().numpy() for each in loaded(*images)], *images)


def test_a_trace_needs_fixed_sizes(tmp_path: Path) -> None:
    graph, _ = trained_like("bccd/atss_R_18_bccd.yaml")
    with pytest.raises(InputError, match="--input-size"):
        torch_writers.write_torchscript(graph, card_of(), tmp_path / "other.ts", ExportOptions())
    assert not list(tmp_path.iterdir())


def test_open_axes_and_examples_follow_the_card() -> None:
    graph, _ = trained_like("bccd/atss_R_18_bccd.yaml")
    assert open_axes(card_of(FixedShape(4))) == ([(1, "height"), (2, "width")], [])
    assert open_axes(card_of(FixedShape(None, (64, 96)))) == ([(0, "batch")], [(0, "batch")])
    assert open_axes(card_of(FIXED)) == ([], [])
    images, sizes = example_inputs(graph, card_of(FixedShape(None, None, (480, 640))))
    assert images.shape == (2, 480, 640, 3) and sizes.tolist() == [[480, 640]] * 2


def test_too_large_a_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = trained_like("bccd/atss_R_18_bccd.yaml")
    monkeypatch.setattr(onnx_writer, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="torch-export"):
        onnx_writer.to_onnx(graph, card_of())


def test_a_model_that_cannot_be_exported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = trained_like("bccd/atss_R_18_bccd.yaml")

    class Choosy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x] if x.sum() > 0 else []

    graph.model.backbone = Choosy()
    with pytest.raises(InputError, match="cannot export this model to ONNX") as caught:
        onnx_writer.to_onnx(graph, card_of(FIXED))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "output, format_name", [("m.pth", ""), ("m", ""), ("m.onnx", "openvino"), ("m.onnx", "tflite")]
)
def test_a_name_that_fits_no_format_is_refused(output: str, format_name: str) -> None:
    with pytest.raises(InputError, match="--output|--format"):
        format_of(Path(output), format_name)
