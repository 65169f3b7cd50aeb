"""GFL and VarifocalNet of mmdetection: converted by the tool, then tested, they find what they found there."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.assembly.detector import Predictor
from engine.assembly.model import build_model
from engine.checkpoint import read_weights
from engine.checkpoint.foreign import translate
from engine.config import load_config
from engine.structures import Detections
from tests.modeling.two_stage import assert_same_set

CLASSES = ("ant", "bee", "cat", "dog", "eel")
NARROW = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  WEIGHT: ""
  BACKBONE: {{CONV_BODY: R-18-FPN-RETINANET}}
  RESNETS: {{NORM: BN, BACKBONE_OUT_CHANNELS: 64}}
INPUT: {{MIN_SIZE_TEST: 256, MAX_SIZE_TEST: 320}}
TEST: {{DETECTIONS_PER_IMG: 300}}
"""
BASES = {"gfl": "gfl/gfl_R_50_FPN_1x.yaml", "vfnet": "vfnet/vfnet_R_50_FPN_1x.yaml"}


def recorded(golden_dir: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The recorded figures, and the whole state dict: body and the rest are in two files."""
    data = torch.load(golden_dir / "mmdet" / f"golden_{name}.pt", weights_only=True)
    body = torch.load(golden_dir / "mmdet" / "golden_atss.pt", weights_only=True)["state_dict"]
    tensors = {key: tensor for key, tensor in body.items() if key.startswith("backbone.")} | data["state_dict"]
    return data, {key: tensor.float() for key, tensor in tensors.items()}


def write_config(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(NARROW.format(base=Path("configs", BASES[name]).resolve()))
    return path


@pytest.mark.parametrize("name", BASES)
def test_converted_weights_find_the_same(
    golden_dir: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, tensors = recorded(golden_dir, name)
    torch.save({"state_dict": tensors, "meta": {"dataset_meta": {"classes": CLASSES}}}, tmp_path / "theirs.pth")
    config = write_config(tmp_path, name)
    main = runpy.run_path("tools/convert_weights.py")["main"]
    main([str(tmp_path / "theirs.pth"), str(tmp_path / "ours.pth"), "--config-file", str(config)])
    told = capsys.readouterr().out
    assert "format: mmdetection" in told
    assert not any(word in told for word in ("missing", "unexpected", "reshaped", "DELTA_WEIGHTS"))
    assert f"MODEL.FPN.RELU_BEFORE_P7 {name == 'vfnet'}" in told
    assert read_weights(str(tmp_path / "ours.pth")).class_names == list(CLASSES)

    image = data["image_uint8_bgr"].permute(1, 2, 0).numpy()
    found: Detections = Predictor(config, tmp_path / "ours.pth", threshold=0.0)(image)
    final = data["final"]
    assert_same_set(found, final["bboxes"], final["scores"], final["labels"], 0.05, 1e-3)


@pytest.mark.parametrize("num_classes", [1, 80])
@pytest.mark.parametrize("name", BASES)
def test_every_name_has_its_place(golden_dir: Path, tmp_path: Path, name: str, num_classes: int) -> None:
    _, tensors = recorded(golden_dir, name)
    for kind in ("weight", "bias"):
        key = f"bbox_head.{name}_cls.{kind}"
        tensors[key] = torch.zeros(num_classes, *tensors[key].shape[1:])
    translated, found = translate(tensors)
    assert found == "mmdetection"
    cfg = load_config(write_config(tmp_path, name), ["MODEL.DENSE.NUM_CLASSES", str(num_classes + 1)])
    ours = build_model(cfg).state_dict()
    assert {key: tensor.shape for key, tensor in translated.items()} == {key: ours[key].shape for key in ours}
