from __future__ import annotations

import logging
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.assembly.detector import Predictor
from engine.checkpoint import io, read_weights, store_thresholds
from engine.checkpoint.foreign import FORMATS
from engine.config import load_config
from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
MODEL:
  DEVICE: cpu
  RPN_ONLY: True
  RETINANET_ON: True
  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET}
  RESNETS: {BACKBONE_OUT_CHANNELS: 8, STEM_OUT_CHANNELS: 8, WIDTH_PER_GROUP: 8}
  RETINANET: {NUM_CLASSES: 3, NUM_CONVS: 1}
INPUT: {MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 64}
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The tool logs to the stderr of this test, which is closed afterwards."""
    logger = logging.getLogger("engine")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(ROOT / "tools/convert_weights.py"))["main"](list(map(str, arguments)))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A small RetinaNet of ours with the names of detectron2."""
    from engine.assembly.model import build_model

    (tmp_path / "c.yaml").write_text(CONFIG)
    names = {
        "backbone.body.stem.bn1.": "backbone.bottom_up.stem.conv1.norm.",
        "backbone.body.stem.": "backbone.bottom_up.stem.",
        "backbone.fpn.top_blocks.": "backbone.top_block.",
        "rpn.head.cls_tower.": "head.cls_subnet.",
        "rpn.head.bbox_tower.": "head.bbox_subnet.",
        "rpn.head.cls_logits.": "head.cls_score.",
        "rpn.head.bbox_pred.": "head.bbox_pred.",
    }

    def theirs(name: str) -> str:
        for ours, other in names.items():
            if name.startswith(ours):
                return name.replace(ours, other)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        for k in (1, 2):
            name = name.replace(f".bn{k}.", f".conv{k}.norm.")
        for level in (1, 2, 3, 4):
            name = name.replace(f"backbone.body.layer{level}.", f"backbone.bottom_up.res{level + 1}.")
            name = name.replace(f"backbone.fpn.fpn_inner{level}.", f"backbone.fpn_lateral{level + 1}.")
            name = name.replace(f"backbone.fpn.fpn_layer{level}.", f"backbone.fpn_output{level + 1}.")
        return name

    model = build_model(load_config(tmp_path / "c.yaml"))
    torch.save({"model": {theirs(k): v for k, v in model.state_dict().items()}}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def test_converts_and_reports(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, output = foreign.with_name("c.yaml"), foreign.with_name("ours.pth")
    main(foreign, output, "--config-file", config, "--class-names", "破洞", "stain")
    told = capsys.readouterr().out
    assert "format: detectron2" in told
    assert "MODEL.PIXEL_CONVENTION continuous" in told
    assert "missing" not in told and "unexpected" not in told
    file = read_weights(output)
    assert (file.format, file.class_names) == ("engine", ["破洞", "stain"])
    assert file.conventions["INPUT.PIXEL_MEAN"] == (103.53, 116.28, 123.675)


def test_overrides_of_the_configuration(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, output = foreign.with_name("c.yaml"), foreign.with_name("ours.pth")
    main(foreign, output, "--config-file", config, "MODEL.RETINANET.NUM_CONVS", "2")
    assert "missing" in capsys.readouterr().out  # the second convolution
    with pytest.raises(InputError, match="unknown key MODEL.RETINANET.NUM_CONV; did you mean"):
        main(foreign, output, "MODEL.RETINANET.NUM_CONV", "2", "--config-file", config)


@pytest.mark.parametrize(
    "arguments", [("MODEL.DEVICE", "cpu"), ("--config-file", "c.yaml", "--deivce", "cpu"), ("--class-names-form", "a")]
)
def test_words_that_mean_nothing(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main("in.pth", "out.pth", *arguments)
    assert stop.value.code == 2 and "error: unrecognized arguments: " in capsys.readouterr().err


def test_help_is_fast_and_knows_all_formats() -> None:
    code = (
        "import runpy, sys; sys.argv = ['convert_weights.py', '--help']\n"
        "try: runpy.run_path('tools/convert_weights.py', run_name='__main__')\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = runpy.run_path(str(ROOT / "tools/convert_weights.py"))["FORMATS"]
    assert set(told) == {"auto", *FORMATS.names()} - {"torchvision_detection"}  # included in "torchvision"


def test_classes_of_the_checkpoint(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are renamed with their thresholds, and give the number of classes if nothing else does."""
    config, ours, renamed = (foreign.with_name(name) for name in ("c.yaml", "ours.pth", "renamed.pth"))
    main(foreign, ours, "--class-names", "a", "b")
    store_thresholds(ours, {"iou": 0.5, "classes": {"a": {"threshold": 0.1}, "b": {"threshold": 0.2}}})
    count = ("--config-file", config, "MODEL.RETINANET.NUM_CLASSES", "0")
    main(ours, renamed, "--class-names", "hole", "stain", *count)
    assert "different shape or classes" not in capsys.readouterr().out
    main(renamed, ours, *count)
    file = read_weights(ours)
    assert file.class_names == ["hole", "stain"]
    assert file.thresholds["classes"] == {"hole": {"threshold": 0.1}, "stain": {"threshold": 0.2}}
    with pytest.raises(InputError, match="3 names .* do not fit its heads"):
        main(ours, renamed, "--class-names", "hole", "stain", "knot")


def test_a_missing_class_count_is_answered(foreign: Path) -> None:
    arguments = ("--config-file", foreign.with_name("c.yaml"), "MODEL.RETINANET.NUM_CLASSES", "0")
    with pytest.raises(InputError, match=r"does not name its classes and MODEL.RETINANET.NUM_CLASSES is 0; name them"):
        main(foreign, foreign.with_name("ours.pth"), *arguments)
    assert not foreign.with_name("ours.pth").exists()


OWN_FORMAT = """
from engine.checkpoint.foreign import FORMATS

@FORMATS.register("speckled")
class Speckled:
    SIGNATURE = r"net[.]"
    def translate(tensors):
        return {name.replace("net.", "backbone.body."): each for name, each in tensors.items()}
"""


def test_a_format_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speckled_format.py").write_text(OWN_FORMAT)
    monkeypatch.chdir(tmp_path)
    torch.save({"net.x.weight": torch.ones(2), "rpn.y": torch.ones(1)}, "in.pth")
    try:
        main("in.pth", "out.pth", "--from", "speckled", "--imports", "speckled_format")
        assert set(io.load("out.pth")["model"]) == {"backbone.body.x.weight", "rpn.y"}
        assert read_weights("in.pth").format == "speckled"  # before `plain`, which would fit too
    finally:
        FORMATS._obj_map.pop("speckled", None)
        sys.modules.pop("speckled_format", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "torchvison"), "--from: nothing is registered as torchvison; did you mean torchvision"),
        (("--imports", "no_such_module"), "IMPORTS: cannot import no_such_module"),
    ],
)
def test_a_wrong_name_is_one_line(foreign: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(foreign, foreign.with_name("ours.pth"), *arguments)


def test_a_checkpoint_of_ours_is_nobody_elses(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = foreign.with_name("ours.pth")
    main(foreign, ours)
    main(ours, foreign.with_name("again.pth"), "--from", "mmdetection")
    assert "a checkpoint of this engine, so --from mmdetection does not apply" in capsys.readouterr().out


def test_the_folder_is_made_and_a_file_in_its_place_is_told(foreign: Path) -> None:
    main(foreign, foreign.parent / "new" / "ours.pth")
    with pytest.raises(InputError, match="cannot be written"):
        main(foreign, foreign / "below_a_file.pth")


def test_predictor_follows_the_conventions(foreign: Path) -> None:
    config, output = foreign.with_name("c.yaml"), foreign.with_name("ours.pth")
    main(foreign, output, "--class-names", "a", "b")
    cfg = load_config(config)
    predictor = Predictor(cfg, output)
    assert predictor.model.rpn.coder.weights == (1.0, 1.0, 1.0, 1.0)
    assert predictor.convention.extent == 0.0
    assert cfg.MODEL.PIXEL_CONVENTION == "inclusive"  # that of the caller is not changed


def test_a_wrong_format_is_answered(foreign: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as weights of torchvision"):
        read_weights(foreign, "torchvision_detection")


def test_unknown_names_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"module.backbone.body.x.weight": torch.zeros(2), "neck.y": torch.zeros(1)}, tmp_path / "odd.pth")
    main(tmp_path / "odd.pth", tmp_path / "out.pth")
    assert "1 names are unknown, such as neck.y" in capsys.readouterr().out


@pytest.mark.parametrize("told", ["atss", "mmdetection", "torchvision"])
def test_a_file_without_any_name_of_ours(told: str, tmp_path: Path) -> None:
    """Nor one of the given project, although a name may start like ours."""
    torch.save({"encoder.weight": torch.zeros(2), "backbone.bottom_up.x": torch.zeros(2)}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="no tensor has a name of our models"):
        main(tmp_path / "odd.pth", tmp_path / "out.pth", "--from", told)
    assert not (tmp_path / "out.pth").exists()
