"""Every command: help at once, mistakes in a configuration answered with their line before torch is loaded."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CONFIG, REPOSITORY, World, run

COMMANDS = ["tools/train_net.py", "tools/test_net.py", "tools/evaluate_results.py", "demo/atss_demo.py"]
SOON = 10.0  # seconds; it takes 0.1 where nobody else works


@pytest.mark.parametrize("script", [*COMMANDS, "datasets/generate_fabric.py"])
def test_help_comes_at_once(script: str) -> None:
    began = time.perf_counter()
    done = run([script, "--help"], fresh=True)
    assert done.returncode == 0 and "usage:" in done.stdout and done.stderr == ""
    assert time.perf_counter() - began < SOON


@pytest.mark.parametrize("script", COMMANDS)
def test_commands_run_in_any_folder(script: str, tmp_path: Path) -> None:
    assert run([REPOSITORY / script, "--help"], cwd=tmp_path, fresh=True).returncode == 0


@pytest.mark.parametrize("script", COMMANDS)
def test_no_option_is_a_usage_error(script: str) -> None:
    done = run([script], fresh=True)
    assert done.returncode == 2 and "--config-file" in done.stderr and "Traceback" not in done.stderr


MISTAKES = [  # what stands in the file, what is written instead, what the answer says
    ("NUM_CONVS: 1", "NUM_CONV: 1", "MODEL.ATSS.NUM_CONVS"),
    ("  BASE_LR: 0.002", "  BASE_LE: 0.002", "SOLVER.BASE_LR"),
    ("WARMUP_ITERS: 0", "WARMUP_ITERS: none", "SOLVER.WARMUP_ITERS"),
    ("STEPS: (5,)", "STEPS: sixty thousand", "SOLVER.STEPS"),
    ("IMS_PER_BATCH: 4", "IMS_PER_BATCH: -4", "SOLVER.IMS_PER_BATCH"),
    ("PIXEL_CONVENTION: continuous", "PIXEL_CONVENTION: continous", "continuous"),
    ("SOLVER:", "SOLVERS:", "SOLVER"),
    ("ATSS_ON: True", "ATSS_ON: yess", "MODEL.ATSS_ON"),
    ("NUM_CLASSES: 0", "NUM_CLASSES: 1", "foreground classes"),
    ("fabric_val: {img_dir: val, ann_file", "fabric_val: {img_dir: val, an_file", "ann_file"),
    ("  TRAIN: (", "  TRAIN: [(", "YAML"),
    ("DEVICE: cpu", "DEVICE: tpu", "cuda"),
]


@pytest.mark.parametrize(("right", "wrong", "answer"), MISTAKES, ids=[wrong for _, wrong, _ in MISTAKES])
def test_mistakes_in_a_file_are_answered_with_their_line(tmp_path: Path, right: str, wrong: str, answer: str) -> None:
    assert CONFIG.count(right) == 1
    line = CONFIG[: CONFIG.index(right)].count("\n") + 1
    config = tmp_path / "mine.yaml"
    config.write_text(CONFIG.replace(right, wrong))
    began = time.perf_counter()
    done = run(["-X", "importtime", "tools/train_net.py", "--config-file", config])
    assert time.perf_counter() - began < SOON
    imported = [text for text in done.stderr.splitlines() if text.startswith("import time:")]
    assert imported and not any(re.search(r"\| +(torch|cv2|numpy)$", text) for text in imported)
    errors = [text for text in done.stderr.splitlines() if not text.startswith("import time:")]
    assert done.returncode == 2 and len(errors) == 1
    assert f"mine.yaml:{line}: " in errors[0] and answer in errors[0]


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["SOLVER.MAX_ITR", "3"], "did you mean SOLVER.MAX_ITER?"),
        (["SOLVER.MAX_ITER"], "has no value"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
        (["DATASETS.TRAIN", "fabric_train"], "write ('fabric_train',)"),
        (["DATASETS.CATALOG", "{'a': {'img_dir': 'x'}}"], "ann_file"),
    ],
)
def test_mistakes_on_the_command_line(world: World, options: list[str], answer: str) -> None:
    done = world.train(*options)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and answer in done.stderr


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    done = run(["tools/test_net.py", "--config-file", tmp_path / "missing.yaml"])
    assert done.returncode == 2 and "missing.yaml" in done.stderr and len(done.stderr.splitlines()) == 1
