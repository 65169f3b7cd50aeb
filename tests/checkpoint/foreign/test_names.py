"""Names of the foreign formats, against the recorded mappings and the keys of the ten published configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.checkpoint import foreign
from engine.checkpoint.foreign import atss, caffe2
from engine.checkpoint.weights import place_deformable, values_by_name

SETUP_OF_MAPPING = {
    "R-50": "atss_R_50_FPN_1x",
    "R-50-dcn": "atss_dcnv2_R_50_FPN_1x",
    "X-101-64x4d-dcn": "atss_dcnv2_X_101_64x4d_FPN_2x",
}


def keys(golden_dir: Path, setup: str) -> dict[str, list[int]]:
    """Name -> shape of everything in the state dict of a configuration, without the anchors."""
    recorded = json.loads((golden_dir / "atss" / "keys.json").read_text())[f"{setup}.yaml"]["state_dict"]
    return {name: shape for name, shape, _ in recorded if "cell_anchors" not in name}


def fakes(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors of any shape that take no memory."""
    return {name: torch.ones(1).expand(shape) for name, shape in shapes.items()}


def ours(recorded: str) -> str:
    """The recorded names are those below `backbone.body`, without the stem."""
    if recorded.startswith("fc1000"):
        return recorded
    return f"backbone.body.{'' if recorded.startswith('layer') else 'stem.'}{recorded}"


@pytest.mark.parametrize("model", SETUP_OF_MAPPING)
def test_caffe2_names_equal_the_recorded_ones(golden_dir: Path, model: str) -> None:
    mapping = json.loads((golden_dir / "atss" / "c2_mapping.json").read_text())[model]
    targets = keys(golden_dir, SETUP_OF_MAPPING[model])
    for blob, recorded in mapping.items():
        name = caffe2.rename(blob)
        if recorded is None:
            assert name is None, blob
        else:
            assert list(place_deformable({name: torch.ones(1)}, targets)) == [ours(recorded)], blob


@pytest.mark.parametrize("model", SETUP_OF_MAPPING)
def test_caffe2_blobs_fill_the_whole_body(golden_dir: Path, model: str) -> None:
    mapping = json.loads((golden_dir / "atss" / "c2_mapping.json").read_text())[model]
    shapes = keys(golden_dir, SETUP_OF_MAPPING[model])
    blobs = fakes({blob: shapes.get(ours(recorded or blob), [1]) for blob, recorded in mapping.items()})
    translated, name = foreign.translate(blobs)
    assert name == "caffe2"
    _, report = values_by_name(place_deformable(translated, shapes), fakes(shapes))
    assert report.unexpected == [] and report.reshaped == []
    assert report.ignored == ["fc1000.bias", "fc1000.weight"]
    missing = [name for name in report.missing if name.startswith("backbone.body.")]
    assert all(".conv2.offset." in name for name in missing)


def test_caffe2_group_norm() -> None:
    assert caffe2.rename("conv1_gn_s") == "backbone.body.stem.bn1.weight"
    assert caffe2.rename("res2_0_branch1_gn_b") == "backbone.body.layer1.0.downsample.1.bias"
    filled = caffe2.translate({"res2_0_branch2a_gn_s": torch.ones(2), "res2_0_branch2b_bn_s": torch.full((2,), 3.0)})
    assert {name: value.tolist() for name, value in filled.items()} == {
        "backbone.body.layer1.0.bn1.weight": [1, 1],
        "backbone.body.layer1.0.bn2.weight": [3, 3],
        "backbone.body.layer1.0.bn2.running_mean": [0, 0],
        "backbone.body.layer1.0.bn2.running_var": [1, 1],
    }


@pytest.mark.parametrize("setup", ["atss_R_50_FPN_1x", "atss_dcnv2_X_101_64x4d_FPN_2x"])
def test_reference_names(golden_dir: Path, setup: str) -> None:
    shapes = keys(golden_dir, setup)
    stored = {f"module.{name}": shape for name, shape in shapes.items()}
    stored["module.rpn.anchor_generator.cell_anchors.0"] = [1, 4]
    translated, name = foreign.translate(fakes(stored))
    assert name == "atss"
    assert values_by_name(translated, fakes(shapes))[1].ok


def test_wrappers() -> None:
    assert atss.strip_wrappers("module.module.rpn.x") == "rpn.x"
    assert atss.strip_wrappers("backbone.module.x") == "backbone.module.x"


def test_torchvision_names() -> None:
    from torchvision.models import resnet18

    translated, name = foreign.translate(resnet18().state_dict())
    assert name == "torchvision"
    assert "backbone.body.stem.conv1.weight" in translated and "backbone.body.layer4.1.bn2.bias" in translated
    assert {name for name in translated if not name.startswith("backbone.body.")} == {"fc.weight", "fc.bias"}
