"""The package and the configuration of `docs/extending.md`, written out and trained as a user would."""

from __future__ import annotations

import csv
import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from tests.end_to_end.conftest import REPOSITORY, read_json, run

TEXT = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": "32",
    "MODEL.ROI_HEADS.SCORE_THRESH": "0.01",
    "INPUT.MIN_SIZE_TRAIN": "(96,)",
    "INPUT.MIN_SIZE_TEST": "96",
    "DATALOADER.NUM_WORKERS": "0",
    "SOLVER.MAX_ITER": "2",
    "SOLVER.STEPS": "()",
    "SOLVER.WARMUP_ITERS": "0",
    "OUTPUT_DIR": "run",
}


def files() -> dict[str, str]:
    """Name -> content of every block that begins with the name of its file."""
    return {name: f"# {name}\n{body}" for name, body in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", TEXT, re.M | re.S)}


def write_table(annotations: Path, table: Path) -> None:
    """The CSV file of the format `table` from a COCO file."""
    coco = json.loads(annotations.read_text(encoding="utf-8"))
    names = {row["id"]: row["name"] for row in coco["categories"]}
    images = {row["id"]: row["file_name"] for row in coco["images"]}
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "class", "cx", "cy", "w", "h"])
        for row in coco["annotations"]:
            x, y, width, height = row["bbox"]
            writer.writerow(
                [images[row["image_id"]], names[row["category_id"]], x + width / 2, y + height / 2, width, height]
            )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, the configuration and a few pictures."""
    folder = tmp_path_factory.mktemp("extending")
    for name, content in files().items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.replace("_BASE_: cascade/", f"_BASE_: {REPOSITORY}/configs/cascade/"))
    (folder / "my_parts" / "__init__.py").touch()
    parts = folder / "datasets" / "parts"
    size = ["--height", "96", "--width", "128"]
    script = REPOSITORY / "datasets" / "generate_fabric.py"
    done = run([script, "--output", parts, "--train", "12", "--val", "6", *size])
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        write_table(parts / "annotations" / f"instances_{split}.json", parts / f"{split}.csv")
    return folder


def test_every_file_of_the_layout_is_there() -> None:
    layout = re.findall(r"^(?:my_parts|configs)/\S+", TEXT, re.M)
    assert set(layout) - {"my_parts/__init__.py"} == files().keys()


def test_the_registries_of_the_table_are_there() -> None:
    named = re.findall(r"`(engine(?:\.\w+)+)\.([A-Z_]+)`", TEXT)
    assert len(named) >= 8
    assert all(hasattr(importlib.import_module(module), name) for module, name in named)


def test_the_parts_train_and_test(home: Path) -> None:
    keys = [word for pair in SMALL.items() for word in pair]
    done = run([REPOSITORY / "tools" / "train_net.py", "--config-file", "configs/my.yaml", *keys], cwd=home)
    assert done.returncode == 0, done.stderr
    assert len((home / "run" / "hard_images.txt").read_text().splitlines()) == 2
    checkpoint = io.load(home / "run" / "model_final.pth")
    assert checkpoint["model"]["backbone.body.stages.3.0.weight"].shape[0] == 128  # 8 times ARGS.width
    assert "backbone.fpn.down.2.weight" in checkpoint["model"]
    assert "hole" in checkpoint["class_names"]
    metrics = read_json(home / "run" / "inference" / "parts_val" / "metrics.json")
    assert 0 <= metrics["bbox"]["AP"] <= 1


@pytest.mark.parametrize("one_stage", [True, False])
def test_the_dense_head_trains_and_tests(home: Path, one_stage: bool) -> None:
    """Alone, and as the first stage of the cascade."""
    keys = {**SMALL, "MODEL.RPN_ONLY": str(one_stage), "OUTPUT_DIR": f"dense_{one_stage}"}
    pairs = [word for pair in keys.items() for word in pair]
    done = run([REPOSITORY / "tools" / "train_net.py", "--config-file", "configs/my_dense.yaml", *pairs], cwd=home)
    assert done.returncode == 0, done.stderr
    checkpoint = io.load(home / f"dense_{one_stage}" / "model_final.pth")
    weights = checkpoint["model"]
    assert "rpn.head.tower.3.weight" in weights and "rpn.head.tower.6.weight" not in weights  # two convolutions
    assert len(weights["rpn.head.cls_logits.weight"]) == (len(checkpoint["class_names"]) if one_stage else 1)
    assert (home / f"dense_{one_stage}" / "inference" / "parts_val" / "metrics.json").is_file()


def test_a_misspelt_argument_of_the_dense_head_is_answered_in_one_line(home: Path) -> None:
    pairs = [word for pair in SMALL.items() for word in pair]
    script = REPOSITORY / "tools" / "train_net.py"
    done = run([script, "--config-file", "configs/my_dense.yaml", *pairs, "MODEL.DENSE.ARGS.topp", "3"], cwd=home)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(lines) == 1
    assert "MODEL.DENSE.ARGS.topp: OneTower takes no such argument; did you mean topk?" in lines[0]


def test_the_spelling_of_the_reference_builds_the_same_body(home: Path) -> None:
    old = "{CONV_BODY: PlainNet-FPN, ARGS: {width: 16}, FREEZE_CONV_BODY_AT: 0}"
    text = (home / "configs" / "my.yaml").read_text(encoding="utf-8")
    text = re.sub(r"  BACKBONE:\n.*?(?=  RESNETS:)", f"  BACKBONE: {old}\n", text, flags=re.S)  # NECK too
    (home / "configs" / "old.yaml").write_text(text, encoding="utf-8")
    code = (
        "from engine.config import load_config; from engine.assembly.model import build_model\n"
        "cfg = load_config('configs/old.yaml', ['MODEL.DEVICE', 'cpu'])\n"
        "backbone = build_model(cfg, ['hole']).backbone\n"
        "print(type(backbone.body).__name__, backbone.body.out_channels, type(backbone.fpn).__name__, backbone.strides)"
    )
    done = run(["-c", code], cwd=home, env={"PYTHONPATH": str(REPOSITORY)})
    assert done.stdout.splitlines()[-1:] == ["PlainNet [16, 32, 64, 128] FPN (4, 8, 16, 32, 64)"], done.stderr


def test_a_misspelt_argument_is_answered_in_one_line(home: Path) -> None:
    text = (home / "configs" / "my.yaml").read_text(encoding="utf-8").replace("{width: 16}", "{widht: 16}")
    (home / "configs" / "misspelt.yaml").write_text(text, encoding="utf-8")
    keys = [word for pair in SMALL.items() for word in pair]
    done = run([REPOSITORY / "tools" / "train_net.py", "--config-file", "configs/misspelt.yaml", *keys], cwd=home)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(lines) == 1
    assert "MODEL.BACKBONE.ARGS.widht: PlainNet takes no such argument; did you mean width?" in lines[0]


def test_a_misspelt_part_is_answered_in_one_line(home: Path) -> None:
    keys = [word for pair in SMALL.items() for word in pair]
    script = REPOSITORY / "tools" / "train_net.py"
    done = run([script, "--config-file", "configs/my.yaml", *keys, "SOLVER.HOOKS", "('HardImage',)"], cwd=home)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(lines) == 1
    assert lines[0] == (
        "error: command line: SOLVER.HOOKS entries must be HardImages, or registered by a module of IMPORTS, "
        "got 'HardImage'; did you mean HardImages?"
    )


def test_weights_of_the_own_format_start_a_training(home: Path) -> None:
    """From the file as it is, with surgery, and from the checkpoint that it is converted into."""
    torch.manual_seed(0)
    shapes = [(16, 3, 7), (32, 16, 3), (64, 32, 3), (128, 64, 3)]
    tensors = {"classifier.weight": torch.ones(2, 128)}
    for i, (channels, in_channels, size) in enumerate(shapes):
        tensors[f"features.{i}.conv.weight"] = torch.randn(channels, in_channels, size, size)
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"features.{i}.norm.{name}"] = torch.rand(channels) + 0.5
    torch.save(tensors, home / "classifier.pth")
    modules = ["backbone", "neck", "loss", "assigner", "table", "rain", "hook", "weights"]
    imports = str([f"my_parts.{name}" for name in modules])
    command = [REPOSITORY / "tools" / "train_net.py", "--config-file", "configs/my.yaml", "--skip-test"]
    keys = {
        **SMALL,
        "IMPORTS": imports,
        "MODEL.WEIGHT": "classifier.pth",
        "OUTPUT_DIR": "weights",
        "SOLVER.MAX_ITER": "1",
    }
    keys |= {"SOLVER.BASE_LR": "0.0", "MODEL.WEIGHT_SURGERY": "without_last_stage"}
    done = run([*command, *(word for pair in keys.items() for word in pair)], cwd=home)
    assert done.returncode == 0, done.stderr
    assert "classifier.pth (plain_classifier): 15 matched" in done.stdout
    assert "was trained with INPUT.PIXEL_MEAN (128.0, 128.0, 128.0), INPUT.PIXEL_STD (64.0, 64.0, 64.0)" in done.stdout
    model = io.load(home / "weights" / "model_final.pth")["model"]
    assert torch.equal(model["backbone.body.stages.2.0.weight"], tensors["features.2.conv.weight"])
    assert not torch.equal(model["backbone.body.stages.3.0.weight"], tensors["features.3.conv.weight"])
    convert = [
        REPOSITORY / "tools" / "convert_weights.py",
        "classifier.pth",
        "body.pth",
        "--imports",
        "my_parts.weights",
    ]
    done = run(convert, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "format: plain_classifier" in done.stdout
    converted = io.load(home / "body.pth")
    assert converted["norm_eps"] == {f"backbone.body.stages.{i}.1": 1e-3 for i in range(4)}
    assert "backbone.body.stages.3.1.running_var" in converted["model"]
