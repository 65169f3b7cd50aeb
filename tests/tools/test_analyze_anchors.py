from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(ROOT / "tools/analyze_anchors.py"))["main"](list(map(str, arguments)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of 100 x 80 with slender boxes, a crowd, and one image without boxes."""
    (tmp_path / "images").mkdir()
    boxes = [(1, [10, 10, 60, 6], 0), (1, [20, 30, 50, 5], 0), (2, [5, 5, 8, 60], 0), (2, [0, 0, 90, 70], 1)]
    for i in (1, 2, 3):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.zeros((80, 100, 3), np.uint8))
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 80, "width": 100} for i in (1, 2, 3)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": crowd, "area": box[2] * box[3]}
            for n, (i, box, crowd) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "scratch"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path


CONFIG = """
MODEL:
  RPN_ONLY: True
  {on}: True
  BACKBONE: {{CONV_BODY: R-18-FPN-RETINANET}}
  RESNETS: {{STEM_OUT_CHANNELS: 8, WIDTH_PER_GROUP: 8, BACKBONE_OUT_CHANNELS: 32}}
  ATSS: {{NUM_CLASSES: 0}}
  RETINANET: {{NUM_CLASSES: 0}}
  FCOS: {{NUM_CLASSES: 0}}
INPUT: {{MIN_SIZE_TRAIN: [160], MAX_SIZE_TRAIN: 400}}
DATASETS:
  ROOT: {root}
  CATALOG: {{mine: {{img_dir: images, ann_file: a.json}}}}
  TRAIN: {train}
"""


@pytest.mark.parametrize("on", ["ATSS_ON", "RETINANET_ON", "FCOS_ON"])
def test_tables_and_plot(data: Path, on: str, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "c.yaml").write_text(CONFIG.format(on=on, root=data, train="[mine]"))
    main("--config-file", data / "c.yaml", "--output-dir", data / "out")
    told = capsys.readouterr().out
    assert "3 boxes in 3 images with a short side of 160 pixels" in told
    assert ("configured" in told) == (on != "FCOS_ON")
    assert "ASPECT_RATIOS: [" in told and "positives per box" in told
    plot = cv2.imread(str(data / "out" / "anchors.png"))
    assert plot.shape == (640, 1200, 3) and plot.std() > 10


def test_a_configuration_without_training_set(data: Path) -> None:
    (data / "c.yaml").write_text(CONFIG.format(on="ATSS_ON", root=data, train="[]"))
    with pytest.raises(InputError, match="DATASETS.TRAIN is empty"):
        main("--config-file", data / "c.yaml")


def test_a_file_in_place_of_the_folder(data: Path) -> None:
    (data / "c.yaml").write_text(CONFIG.format(on="FCOS_ON", root=data, train="[mine]"))
    with pytest.raises(InputError, match=r"anchors.png: cannot be written"):
        main("--config-file", data / "c.yaml", "--output-dir", data / "a.json")


@pytest.mark.parametrize("flags", [("--seed", "-1"), ("--num-ratios", "0"), ("--max-images", "-1")])
def test_bad_flags(flags: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main("--config-file", "c.yaml", *flags)
    assert stop.value.code == 2 and f"{flags[0]}" in capsys.readouterr().err.splitlines()[-1]
