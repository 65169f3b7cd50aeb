"""`tools/train_net.py`: what it leaves behind, and going on after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from engine.config import load_config
from tests.end_to_end.conftest import NUM_VAL, Trained, World, figures_of, read_json, read_metrics

CLASSES = ["hole", "stain", "broken_thread", "knot", "float"]
FIGURES = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"}


def test_files_of_a_run(trained: Trained) -> None:
    files = {str(path.relative_to(trained.folder)) for path in trained.folder.rglob("*") if path.is_file()}
    inference = {f"inference/fabric_val/{name}.json" for name in ("bbox", "metrics", "thresholds")}
    own = {"config.yaml", "log.txt", "metrics.jsonl", "model_0000004.pth", "model_final.pth", "last_checkpoint"}
    assert files == own | inference


def test_nothing_is_said_on_stderr(trained: Trained) -> None:
    assert trained.errors == ""


def test_config_is_resolved_and_loads_again(trained: Trained) -> None:
    cfg = load_config(trained.folder / "config.yaml")
    assert cfg.SOLVER.MAX_ITER == 6 and str(trained.folder) == cfg.OUTPUT_DIR
    assert cfg.INPUT.PIXEL_MEAN == load_config(trained.folder / "config.yaml", []).INPUT.PIXEL_MEAN
    assert cfg.dump() == (trained.folder / "config.yaml").read_text()


def test_metrics_jsonl_has_an_object_for_each_logged_step(trained: Trained) -> None:
    lines = read_metrics(trained.folder)
    assert [line["iteration"] for line in lines] == [2, 4, 6]
    assert [line["lr"] for line in lines] == pytest.approx([0.002, 0.002, 0.0002])
    for line in lines:
        parts = line["loss_cls"] + line["loss_reg"] + line["loss_centerness"]
        assert line["loss"] == pytest.approx(parts) and "skipped_images" not in line
        assert {"time", "data_time", "eta_seconds", "memory_mb"} <= line.keys()
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_log_names_the_results(trained: Trained) -> None:
    log = (trained.folder / "log.txt").read_text()
    assert "iter 6/6" in log and "broken_thread" in log and str(trained.inference) in log
    assert "iter 6/6" in trained.output


def test_result_files(trained: Trained) -> None:
    results = read_json(trained.inference / "bbox.json")
    assert results and all(set(r) == {"image_id", "category_id", "bbox", "score"} for r in results)
    assert {r["category_id"] for r in results} <= {1, 2, 3, 4, 5}
    metrics = read_json(trained.inference / "metrics.json")
    assert metrics["bbox"].keys() >= FIGURES and list(metrics["per_class"]) == CLASSES
    assert all(figures.keys() >= FIGURES for figures in metrics["per_class"].values())
    assert metrics["num_images"] == NUM_VAL and metrics["skipped_images"] == []
    thresholds = read_json(trained.inference / "thresholds.json")
    assert thresholds.keys() == {"iou", "beta", "classes"} and list(thresholds["classes"]) == CLASSES
    for entry in thresholds["classes"].values():
        assert {"threshold", "f_measure", "precision", "recall", "num_gt"} <= entry.keys()
        assert (entry["threshold"] is None) == ("reason" in entry)


def test_checkpoints(trained: Trained) -> None:
    assert (trained.folder / "last_checkpoint").read_text().strip() == "model_final.pth"
    final, middle = io.load(trained.model), io.load(trained.folder / "model_0000004.pth")
    assert (final["iteration"], middle["iteration"]) == (6, 4)
    assert final["class_names"] == middle["class_names"] == CLASSES
    assert final["thresholds"] == read_json(trained.inference / "thresholds.json")
    assert middle["thresholds"] is None
    assert final["config"] == (trained.folder / "config.yaml").read_text()


# ---------------------------------------------------------------- going on


@pytest.fixture(scope="module")
def resumed(world: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run as if it had been killed in iteration 6, resumed."""
    folder = tmp_path_factory.mktemp("resumed") / "run"
    shutil.copytree(trained.folder, folder)
    (folder / "model_final.pth").unlink()
    shutil.rmtree(folder / "inference")
    (folder / "last_checkpoint").write_text("model_0000004.pth")
    torn = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(torn[:3]) + torn[3][:20])
    done = world.train("--resume", "--skip-test", "OUTPUT_DIR", folder)
    assert done.returncode == 0, done.stderr
    return Trained(folder, done.stdout, done.stderr)


def test_resumed_run_equals_the_uninterrupted_bit_by_bit(trained: Trained, resumed: Trained) -> None:
    assert "resuming" in resumed.output and "iteration 4 of 6" in resumed.output
    whole, again = io.load(trained.model), io.load(resumed.model)
    assert whole["model"].keys() == again["model"].keys()
    assert all(torch.equal(whole["model"][name], again["model"][name]) for name in whole["model"])
    momenta, others = (state["optimizer"]["state"] for state in (whole, again))
    assert all(torch.equal(momenta[k]["momentum_buffer"], others[k]["momentum_buffer"]) for k in momenta)

    assert figures_of(resumed.folder) == figures_of(trained.folder)


def test_skip_test(resumed: Trained) -> None:
    assert not resumed.inference.exists() and io.load(resumed.model)["thresholds"] is None


def test_resuming_a_finished_run_says_so_and_tests(world: World, trained: Trained, resumed: Trained) -> None:
    done = world.train("--resume", "OUTPUT_DIR", resumed.folder)
    assert done.returncode == 0 and "nothing left to train" in done.stdout and "resuming" not in done.stdout
    for name in ("bbox", "metrics", "thresholds"):
        assert read_json(resumed.inference / f"{name}.json") == read_json(trained.inference / f"{name}.json")
    more = world.train("--resume", "--skip-test", "OUTPUT_DIR", resumed.folder, "SOLVER.MAX_ITER", "7")
    assert more.returncode == 0 and "iteration 6 of 7" in more.stdout
    assert [line["iteration"] for line in read_metrics(resumed.folder)] == [2, 4, 6, 7]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["SOLVER.OPTIMIZER", "AdamW"], "SOLVER.OPTIMIZER SGD"),
        (["MODEL.RESNETS.BACKBONE_OUT_CHANNELS", "64"], "size mismatch for backbone.fpn"),
        (["MODEL.ATSS.NUM_CONVS", "2"], "rpn.head.cls_tower"),
    ],
)
def test_resuming_with_another_model_is_one_line(
    world: World, trained: Trained, tmp_path: Path, changes: list[str], reason: str
) -> None:
    for name in ("model_final.pth", "last_checkpoint"):
        shutil.copy(trained.folder / name, tmp_path)
    done = world.train("--resume", "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", "8", *changes)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "does not fit" in done.stderr and reason in done.stderr
