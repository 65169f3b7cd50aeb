from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ATSS = ROOT / "configs/atss/atss_R_50_FPN_1x.yaml"
CASCADE = ROOT / "configs/cascade/cascade_R_50_FPN_1x.yaml"


def main(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    runpy.run_path(str(ROOT / "tools/model_complexity.py"))["main"](list(map(str, arguments)))
    return capsys.readouterr().out


def rows(text: str) -> dict[str, list[str]]:
    table = text.split("\n\n")[1].splitlines()[2:]
    return {line.split()[0]: line.split()[1:] for line in table}


def test_atss(capsys: pytest.CaptureFixture[str]) -> None:
    """The towers of the head by hand: at 64 x 96 the levels have 96, 24, 6, 2 and 1 pixels."""
    told = main(capsys, "--config-file", ATSS, "--size", "60", "90", "--depth", "4")
    assert "one image of 60 x 90 (height x width), padded to 64 x 96" in told
    assert "second stage" not in told and "POOLER" not in told
    table = rows(told)
    pixels = 96 + 24 + 6 + 2 + 1
    conv, group_norm = 256 * 256 * 9 * pixels, 5 * 256 * pixels
    assert table["rpn.head.cls_tower"][2] == f"{4 * (conv + group_norm) / 1e9:.3f}"
    assert table["rpn.head.cls_logits"][2] == f"{256 * 80 * 9 * pixels / 1e9:.3f}"
    assert table["backbone.body"][0] == "23,454,912"
    conv = 256 * 256 * 9 + 256
    pyramid = (512 + 1024 + 2048) * 256 + 3 * 256 + 5 * conv
    head = 2 * 4 * (conv + 2 * 256) + (80 + 4 + 1) * (256 * 9 + 1) + 5
    assert table["all"][0] == f"{23_454_912 + pyramid + head:,}"
    assert "Not counted: " in told and "max_pool2d" in told and "rpn.head.cls_tower.0" in table
    assert "rpn.anchor_generator" not in table


def test_cascade(capsys: pytest.CaptureFixture[str]) -> None:
    told = main(
        capsys, "--config-file", CASCADE, "--size", "64", "96", "--depth", "3", "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", "7"
    )
    assert "second stage: 7 regions" in told and "counted as 2 x 2 per cell" in told
    table = rows(told)
    stage = 12544 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 4
    assert table["roi_heads.box.1"] == [f"{stage + 2 * 1024 + 81 + 4:,}"] * 2 + [f"{7 * stage / 1e9:.3f}", "0.015"]
    assert table["roi_heads"][2] == f"{3 * 7 * (stage + 256 * 49 * 4 * 4) / 1e9:.3f}"
    assert table["roi_heads.pooler"][2] == f"{3 * 7 * 256 * 49 * 4 * 4 / 1e9:.3f}"
    assert table["backbone.body.stem"][1] == "0"  # frozen


def test_a_command_speaks_on_stdout_only(tmp_path: Path) -> None:
    """Deformable layers, the default size, no class names and no data."""
    (tmp_path / "c.yaml").write_text(
        "MODEL:\n  RPN_ONLY: True\n  FCOS_ON: True\n  DEVICE: cpu\n  WEIGHT: catalog://ImageNetPretrained/MSRA/R-50\n"
        "  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET}\n  FCOS: {NUM_CLASSES: 3, NUM_CONVS: 1}\n"
        "  RESNETS: {BACKBONE_OUT_CHANNELS: 32, STAGE_WITH_DCN: [False, False, False, True]}\n"
        "INPUT: {MIN_SIZE_TEST: 40, MAX_SIZE_TEST: 64}\n"
    )
    done = subprocess.run(
        [sys.executable, ROOT / "tools/model_complexity.py", "--config-file", tmp_path / "c.yaml"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "one image of 40 x 64" in done.stdout and "deform" not in done.stdout
    assert list(rows(done.stdout)) == ["all", "backbone", "backbone.body", "backbone.fpn", "rpn", "rpn.head"]


def test_classes_of_a_data_set_that_is_not_here(tmp_path: Path) -> None:
    config = ROOT / "configs/quickstart/cascade_R_18_fabric.yaml"
    with pytest.raises(InputError, match=r"fabric_train.*or set the number.*MODEL\.ROI_BOX_HEAD\.NUM_CLASSES"):
        main(None, "--config-file", config, "DATASETS.ROOT", tmp_path)


@pytest.mark.parametrize("flags", [("--depth", "-1"), ("--size", "0", "5"), ("--size", "5")])
def test_bad_flags(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(capsys, "--config-file", ATSS, *flags)
    assert stop.value.code == 2
