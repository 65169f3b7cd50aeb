from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import pytest

from engine.assembly.analysis import browse_training
from engine.assembly.data import build_train_loader, build_train_transform
from engine.config import load_config
from engine.errors import InputError
from tests.conftest import WriteCoco

ROOT = Path(__file__).resolve().parents[2]


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(ROOT / "tools/browse_dataset.py"))["main"](list(map(str, arguments)))


@pytest.fixture
def config(tmp_path: Path, write_coco: WriteCoco) -> Path:
    annotations = [{"id": k, "image_id": k, "category_id": 7, "bbox": [10, 10, 30, 20]} for k in (1, 2)]
    write_coco([(k, 80, 100) for k in range(1, 6)], annotations)
    path = tmp_path / "config.yaml"
    path.write_text(
        f"_BASE_: {ROOT}/configs/quickstart/_base_atss_R_18_cpu.yaml\n"
        f"DATASETS: {{ROOT: {tmp_path}, CATALOG: {{toy: {{img_dir: toy/images, ann_file: toy/ann.json}}}}, "
        "TRAIN: [toy]}\n"
        "INPUT: {MIN_SIZE_TRAIN: [80], AUGMENTATIONS: [{name: Mosaic}]}\n"
        "SOLVER: {IMS_PER_BATCH: 4, ACCUMULATE: 2, MAX_ITER: 3}\nSEED: 2\n"
    )
    return path


def test_pages(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    main("--config-file", config, "--output-dir", out, "--num-images", 7, "--per-page", 4, "--columns", 2)
    names = ["page_001_iterations_0_to_0.png", "page_002_iterations_1_to_1.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert cv2.imread(str(out / names[0])).shape[1] == 2 * 480 + 3 * 8
    assert f"7 images, from iteration 0 on, drawn into {out}" in capsys.readouterr().out
    main("--config-file", config, "--output-dir", out, "--num-images", 99, "--iteration", 2)
    assert "4 images, from iteration 2 on" in capsys.readouterr().out  # the run ends there
    with pytest.raises(InputError, match="the run ends before iteration 3; see SOLVER.MAX_ITER"):
        main("--config-file", config, "--output-dir", out, "--iteration", 3)


@pytest.mark.parametrize("to_bgr255", [True, False])
def test_pictures_are_those_of_the_run(config: Path, to_bgr255: bool) -> None:
    opts = [] if to_bgr255 else ["INPUT.TO_BGR255", "False", "INPUT.PIXEL_MEAN", "(0.4, 0.5, 0.6)"]
    opts += ["INPUT.PIXEL_STD", "(0.2, 0.3, 0.4)"]
    cfg = load_config(config, opts)
    shown = list(browse_training(cfg, 1, 4, show_labels=False))
    assert [iteration for iteration, _ in shown] == [1] * 4
    normalize = build_train_transform(cfg).steps[-1]
    trained_on = [
        (tensor[:, :height, :width], targets)
        for batch in list(build_train_loader(cfg))[2:4]  # two passes make iteration 1
        for tensor, (height, width), targets in zip(batch.images.tensor, batch.images.sizes, batch.targets, strict=True)
    ]
    for (_, picture), (pixels, targets) in zip(shown, trained_on, strict=True):
        height = pixels.shape[1]
        image = normalize.undo(pixels).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        same = (picture[-height:] == image).all(axis=2).mean()
        assert same == 1 if not len(targets) else same > 0.5
        assert (normalize.pixels(normalize.undo(pixels)) - pixels).abs().max() < 1e-4
    assert len(shown) == 4
