"""Files that are damaged, foreign or hostile: one line each, and no code of theirs is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.runtime import Detector
from engine.runtime.card import CARD_KEY, ImageRule, ModelCard, TileRule
from engine.runtime.card_file import read_card, write_card
from engine.runtime.onnx_file import read_onnx
from tests.runtime.conftest import CARD, write_onnx, write_openvino

onnx = pytest.importorskip("onnx")
WHITE = np.full((40, 60, 3), 255, np.uint8)


def refusal(path: Path) -> str:
    """The line with which a file is refused; it names the file."""
    with pytest.raises(InputError) as caught:
        Detector(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def changed(tmp_path: Path, change: Callable[[Any], None]) -> str:
    return refusal(write_onnx(tmp_path / "model.onnx", changes=change))


def test_no_such_file(tmp_path: Path) -> None:
    for name in ("no.onnx", "no.xml"):
        assert "no such file" in refusal(tmp_path / name)
    for suffix in (".onnx", ".xml"):
        folder = tmp_path / f"folder{suffix}"
        folder.mkdir()
        assert "no such file" in refusal(folder)
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"0")
    assert ".onnx or .xml" in refusal(weights)


@pytest.mark.parametrize("data", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(99), b"\xff" * 40, b"\x08\x09"])
def test_what_is_no_onnx_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert "not an ONNX file" in refusal(path) or "no model card" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"no XML", b"<a/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', bytes(20)])
def test_what_is_no_openvino_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.xml"
    path.write_bytes(data)
    assert "not an OpenVINO model" in refusal(path) or "no model card" in refusal(path)


def test_a_truncated_file_at_any_length(tmp_path: Path) -> None:
    whole = write_onnx(tmp_path / "model.onnx").read_bytes()
    path = tmp_path / "part.onnx"
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        refusal(path)


def test_bytes_changed_at_random(tmp_path: Path) -> None:
    """Whatever becomes of it: a detector, or one line."""
    whole = write_onnx(tmp_path / "model.onnx").read_bytes()
    path, random = tmp_path / "odd.onnx", np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            detector = Detector(path)
            detector(WHITE)
        except InputError as error:
            assert "\n" not in str(error)


def test_an_openvino_model_without_its_weights(tmp_path: Path) -> None:
    path = write_openvino(tmp_path / "model.xml")
    path.with_suffix(".bin").unlink()
    assert "openvino" in refusal(path) and "cannot load" in refusal(path)


def test_a_model_of_someone_else(tmp_path: Path) -> None:
    assert "no model card" in refusal(write_onnx(tmp_path / "foreign.onnx", card=None))
    assert "no model card" in refusal(write_openvino(tmp_path / "foreign.xml", card=None))


def test_other_inputs_and_outputs(tmp_path: Path) -> None:
    def rename_input(model: Any) -> None:
        model.graph.input[1].name = "shapes"
        model.graph.node[5].input[0] = "shapes"

    def drop_output(model: Any) -> None:
        del model.graph.output[3]

    assert "takes 'images', 'shapes'" in changed(tmp_path, rename_input)
    assert "gives 'boxes', 'scores', 'labels', not" in changed(tmp_path, drop_output)
    card = replace(CARD, images=replace(CARD.images, pixels="float32"))
    path = write_onnx(tmp_path / "model.onnx")
    write_card(path, card)
    assert "takes tensor(uint8), its card says float32" in refusal(path)


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    """Wherever a tensor may stand: as a weight, in an attribute, in a branch."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))

    def make_external(tensor: Any) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", str(secret)), ("offset", "0"), ("length", "64")):
            tensor.external_data.add(key=key, value=value)

    def in_weights(model: Any) -> None:
        make_external(model.graph.initializer[0])

    def in_attribute(model: Any) -> None:
        node = onnx.helper.make_node("Constant", [], ["unused"], value=onnx.numpy_helper.from_array(np.zeros(16)))
        make_external(node.attribute[0].t)
        model.graph.node.insert(0, node)

    def in_branch(model: Any) -> None:
        inner = onnx.helper.make_graph([], "branch", [], [], [onnx.numpy_helper.from_array(np.zeros(16), "w")])
        make_external(inner.initializer[0])
        model.graph.node.add(op_type="If", input=["c"], output=["d"]).attribute.append(
            onnx.helper.make_attribute("then_branch", inner)
        )

    for change in (in_weights, in_attribute, in_branch):
        path = tmp_path / "model.onnx"
        model = onnx.load(write_onnx(path))
        change(model)
        path.write_bytes(model.SerializeToString())
        assert "weights in other files, which are not read" in refusal(path)


def test_operators_that_the_library_does_not_have(tmp_path: Path) -> None:
    def custom(model: Any) -> None:
        model.graph.node[0].domain = "evil.example"
        model.opset_import.add(domain="evil.example", version=1)

    assert "onnxruntime" in changed(tmp_path, custom) and "evil.example" in changed(tmp_path, custom)


SANE = asdict(CARD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "another version"),
        ({"format": None}, "another version"),
        ({"class_names": []}, "class_names"),
        ({"class_names": ["a", "a"]}, "class_names"),
        ({"class_names": "ab"}, "class_names is 'ab'"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"thresholds": {"hole": "high"}}, "thresholds.hole is 'high'"),
        ({"thresholds": {"hole": 1.5}}, "thresholds"),
        ({"thresholds": {"hole": float("nan")}}, "thresholds"),
        ({"default_threshold": True}, "default_threshold is True"),
        ({"images": None}, "images is None"),
        ({"images": {"min_size": 4}}, "max_size"),
        ({"images": {"min_size": 4, "max_size": 2}}, "images"),
        ({"images": {"min_size": 4, "max_size": 8, "hue": 3}}, "hue"),
        ({"images": {"min_size": 4, "max_size": 8, "orientation": "left"}}, "images"),
        ({"images": {"min_size": 4, "max_size": 8, "value_range": [5, 5]}}, "images"),
        ({"shape": {"input_size": [0, 4]}}, "shape"),
        ({"shape": {"input_size": [4]}}, "input_size"),
        ({"shape": {"batch_size": 1.5}}, "batch_size is 1.5"),
        ({"inference_precision": "f8"}, "inference_precision"),
        ({"tiles": {"size": 40}}, "merge"),
        ({"wheels": 4}, "wheels"),
    ],
)
def test_a_card_that_makes_no_sense(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match="f.onnx") as caught:
        ModelCard.from_json(json.dumps(SANE | change), "f.onnx")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"format": 1}'])
def test_a_card_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="f.onnx"):
        ModelCard.from_json(text, "f.onnx")


def test_rules_of_tiles_that_the_runtime_does_not_have(tmp_path: Path) -> None:
    tiles = TileRule(40, 8, False, (0.0, 0.0, 0.0), "nms", {"iou_thresh": 0.5})
    for merge, parameters in (("mine", {}), ("nms", {}), ("nms", {"iou": 0.5}), ("nms", {"iou_thresh": "much"})):
        card = replace(CARD, tiles=replace(tiles, merge=merge, parameters=parameters))
        assert "tiles" in refusal(write_onnx(tmp_path / "model.onnx", card))


def test_a_card_comes_back_as_it_was(tmp_path: Path) -> None:
    tiles = TileRule(40, 8, True, (1.5, 0.0, 0.0), "soft-vote", {"iou_thresh": 0.5, "score_thresh": 0.05})
    images = ImageRule(4, 8, 3, (0.0, 4095.0), "apply", 1.0, "float32")
    card = replace(CARD, class_names=("Kratzer ä", "洞"), tiles=tiles, images=images, facts={"AP": 0.5})
    assert ModelCard.from_json(card.to_json(), "") == card
    for path in (write_onnx(tmp_path / "a.onnx"), write_openvino(tmp_path / "b.xml")):
        before = path.read_bytes()
        assert read_card(path) == CARD
        new = replace(CARD, thresholds={"hole": 0.25, "stain": 0.95}, facts={"note": '<&">\n'})
        write_card(path, new)
        assert read_card(path) == new and path.read_bytes() != before
        found = Detector(path)(WHITE)
        assert found.labels.tolist() == [0, 0] and found.scores.tolist() == pytest.approx([0.9, 0.4])
        write_card(path, CARD)
    _, metadata = read_onnx(tmp_path / "a.onnx")
    assert metadata == {"made by": "hand", CARD_KEY: CARD.to_json()}
    assert [each.key for each in onnx.load(tmp_path / "a.onnx").metadata_props] == ["made by", CARD_KEY]
