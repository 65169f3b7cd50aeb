"""The writers. Those of W&B and MLflow are tested with a stand-in, and with the library if it is installed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine.assembly.training import build_writers
from engine.config import get_cfg
from engine.errors import InputError
from engine.training.hooks import Run
from engine.training.writers import (
    WRITERS,
    ConsoleWriter,
    MetricsFile,
    Writer,
    drop_records_after,
    read_records,
)
from tests.end_to_end.conftest import REPOSITORY

TRAINING = {"lr": 0.01, "loss": 1.5, "loss_cls": 0.5, "loss_reg": 1.0, "time": 0.5, "data_time": 0.1, "eta_seconds": 60}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    model = nn.Linear(1, 1)
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "config.yaml").write_text("SOLVER: {BASE_LR: 0.5}\n")
    return Run(model, torch.optim.SGD(model.parameters(), 0.1), folder, 100)


def build(run: Run, *names: str) -> list[Writer]:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.WRITERS", str(names)])
    return build_writers(cfg, run)


# ---------------------------------------------------------------- metrics.jsonl


def test_records_to_be_done_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    drop_records_after(path, 4)  # no file, nothing to do
    assert not path.exists()
    records = [{"iteration": i, "loss": 0.1 * i, "grad_norm": None} for i in (2, 4, 6)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"iterat')
    drop_records_after(path, 4)
    assert path.read_text() == "".join(json.dumps(record) + "\n" for record in records[:2])
    drop_records_after(path, 0)
    assert path.read_text() == ""


def test_the_summary_of_the_data_comes_first_and_stays(tmp_path: Path) -> None:
    data = {"parts": {"num_images": 3, "boxes": {"hole": 2}}}
    first = {"iteration": 0, "data": data}
    for start in (0, 1):  # a new run, and the run resumed from its first iteration
        file = MetricsFile(tmp_path, data)
        file.open(start)
        file.write({"iteration": start + 1, "loss": 0.5})
        file.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [first, {"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.5}]
    assert read_records(tmp_path / "metrics.jsonl") == lines[1:]


def test_lines_that_are_no_record_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n\x00\xff\n[1]\n{"loss": 2}\n{"iteration": 2, "l\n{"iteration": 3}\n{"iter')
    assert read_records(path) == [{"iteration": 1}, {"iteration": 3}]
    path.write_text('{"iteration": true}\n{"iteration": 1, "a": "b", "c": [1], "d": true, "lr": null, "time": 2.5}')
    assert read_records(path) == [{"iteration": 1, "lr": None, "time": 2.5}]
    lines = ['{"iteration": 1, "lr": 1' + "0" * 400 + ', "time": 2}', '{"iteration": 1' + "0" * 20 + "}", "[" * 9999]
    path.write_text("\n".join([*lines, '{"iteration": 2, "lr": 1' + "0" * 5000 + "}"]))
    assert read_records(path) == [{"iteration": 1, "time": 2}]
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path)


def test_a_metrics_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metrics.jsonl: cannot be written"):
        MetricsFile(tmp_path / "nowhere").open(0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    writer = MetricsFile(tmp_path)
    writer.file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(InputError, match="No space left on device.*--resume"):
        writer.write({"iteration": 1})
    writer.close()  # tries to write the rest and fails


# ---------------------------------------------------------------- the console

SCRIPT = """
import sys
from pathlib import Path
from engine.log import setup_logging
from engine.training.writers import ConsoleWriter
logger = setup_logging(Path(sys.argv[1]))
writer = ConsoleWriter(100)
writer.open(40)
for _ in range(20): writer.advance()
writer.write({"iteration": 60, "lr": 0.01, "loss": 1.5, "loss_cls": 0.5, "loss_reg": 1.0, "time": 0.5, "data_time": 0.1,
              "eta_seconds": 20, "memory_mb": 321})
writer.write({"iteration": 60, "val/AP": 0.25})
writer.bar.refresh()
logger.info("something else")
writer.close()
"""
LINE = (
    "iter 60/100  eta 0:00:20  loss 1.5000  loss_cls 0.5000  loss_reg 1.0000  lr 0.01  time 0.500  data 0.100  "
    "memory 321 MB"
)
COMMAND = [sys.executable, "-c", SCRIPT]


def test_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, tmp_path], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{LINE}\nsomething else\n", "")
    assert LINE in (tmp_path / "log.txt").read_text()


def on_terminal(command: list[Any], is_stdout_too: bool) -> tuple[str, str]:
    """The output of a command on a terminal of 200 columns, and its stdout if that is a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stderr=theirs,
        stdout=theirs if is_stdout_too else subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    piped = process.stdout.read() if process.stdout else ""
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux: the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return shown.decode(), piped


def test_a_bar_and_no_lines_on_a_terminal(tmp_path: Path) -> None:
    shown, _ = on_terminal([*COMMAND, tmp_path], is_stdout_too=True)
    assert "iter 60/100" not in shown and "something else" in shown
    assert "60/100" in shown and "loss 1.500 (cls 0.500 reg 1.000), lr 0.01, data 20%, 321 MB" in shown
    assert LINE in (tmp_path / "log.txt").read_text()


def test_lines_in_a_file_beside_a_bar_on_the_terminal(tmp_path: Path) -> None:
    shown, piped = on_terminal([*COMMAND, tmp_path], is_stdout_too=False)
    assert piped == f"{LINE}\nsomething else\n" and "60/100" in shown and "iter 60" not in shown


# ---------------------------------------------------------------- by name


def test_an_unknown_writer_is_one_line(run: Run) -> None:
    with pytest.raises(InputError, match="SOLVER.WRITERS: .* tensorbord; did you mean tensorboard?"):
        build(run, "tensorbord")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("tensorboard", "torch.utils.tensorboard", "tensorboard"), ("wandb", *["wandb"] * 2), ("mlflow", *["mlflow"] * 2)],
)
def test_a_library_that_is_not_installed_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    with pytest.raises(InputError, match=f"SOLVER.WRITERS: {package} .*: pip install {package}$"):
        build(run, name)


def test_a_writer_of_one_s_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Writer):
        def __init__(self, run: Run) -> None:
            self.run = run

    monkeypatch.setitem(WRITERS._obj_map, "Own", Own)
    (writer,) = build(run, "Own")
    assert isinstance(writer, Own) and writer.run is run
    writer.open(0), writer.write({"iteration": 1}), writer.close()


# ---------------------------------------------------------------- TensorBoard


def test_tensorboard_shows_a_resumed_run_as_one(run: Run) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start, sign in ((0, 1), (4, -1)):  # killed at 8, resumed from 4
        (writer,) = build(run, "tensorboard")
        writer.open(start)
        for done in range(start + 2, 9, 2):
            writer.write({"iteration": done, "loss": sign * float(done), "grad_norm": None})
        if start:
            writer.write({"iteration": 8, "val/AP": 0.5})
        writer.close()
        time.sleep(1.1)  # the files are read in the order of their names, which hold the second
    events = accumulator.EventAccumulator(str(run.output_dir / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "val/AP"}
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(2, 2), (4, 4), (6, -6), (8, -8)]
    assert [(e.step, e.value) for e in events.Scalars("val/AP")] == [(8, 0.5)]


# ---------------------------------------------------------------- stand-ins for W&B and MLflow


class FakeWandb(SimpleNamespace):
    """Records its calls; "init" returns runs numbered from 1, or the one with the given id."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__(inits=[], logged=[], metrics=[], exit_codes=[], refusal=None)

    def init(self, **options: Any) -> Any:
        if self.refusal:
            raise self.Error(self.refusal)
        self.inits.append(options)
        return SimpleNamespace(
            id=options["id"] or f"run{len(self.inits)}",
            define_metric=lambda name, step_metric=None: self.metrics.append((name, step_metric)),
            log=self.logged.append,
            finish=lambda exit_code: self.exit_codes.append(exit_code),
        )


class FakeMLflow(SimpleNamespace):
    class MlflowException(Exception):
        pass

    def __init__(self) -> None:
        super().__init__(starts=[], logged=[], artifacts=[], ends=[], refusal=None)

    def _answer(self) -> None:
        if self.refusal:
            raise self.MlflowException(self.refusal)

    def start_run(self, run_id: str | None, run_name: str | None) -> Any:
        self._answer()
        self.starts.append((run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"run{len(self.starts)}"))

    def log_artifact(self, path: str) -> None:
        self.artifacts.append(Path(path).name)

    def log_metrics(self, figures: dict[str, float], step: int) -> None:
        self._answer()
        self.logged.append((step, figures))

    def end_run(self, status: str) -> None:
        self.ends.append(status)


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def write_and_close(writer: Writer, start: int, iteration: int, fails: bool = False) -> None:
    writer.open(start)
    try:
        writer.write({"iteration": iteration, **TRAINING, "grad_norm": None})
        if fails:
            raise RuntimeError
    finally:
        writer.close()


def test_wandb_goes_on_in_the_run_that_is_resumed(run: Run, fake_wandb: FakeWandb) -> None:
    for start in (0, 20, 0):
        write_and_close(build(run, "wandb")[0], start, start + 20)
    assert [options["id"] for options in fake_wandb.inits] == [None, "run1", None]
    assert fake_wandb.inits[0]["name"] == "parts" and fake_wandb.inits[0]["config"] == {"SOLVER": {"BASE_LR": 0.5}}
    assert fake_wandb.metrics[:2] == [("iteration", None), ("*", "iteration")]
    assert fake_wandb.logged[1] == {"iteration": 40, **TRAINING} and fake_wandb.exit_codes == [0, 0, 0]


def test_mlflow_goes_on_in_the_run_that_is_resumed(run: Run, fake_mlflow: FakeMLflow) -> None:
    for start in (0, 20, 0):
        write_and_close(build(run, "mlflow")[0], start, start + 20)
    assert fake_mlflow.starts == [(None, "parts"), ("run1", None), (None, "parts")]
    assert fake_mlflow.logged[1] == (40, TRAINING) and fake_mlflow.artifacts[0] == "config.yaml"
    assert fake_mlflow.ends == ["FINISHED"] * 3


def test_trackers_learn_that_a_training_failed(run: Run, fake_wandb: FakeWandb, fake_mlflow: FakeMLflow) -> None:
    for writer in build(run, "wandb", "mlflow"):
        with pytest.raises(RuntimeError):
            write_and_close(writer, 0, 20, fails=True)
    assert fake_wandb.exit_codes == [1] and fake_mlflow.ends == ["FAILED"]


def test_a_tracker_that_refuses_is_one_line(run: Run, fake_wandb: FakeWandb, fake_mlflow: FakeMLflow) -> None:
    fake_wandb.refusal = fake_mlflow.refusal = "no key given\nsee the manual"
    for writer in build(run, "wandb", "mlflow"):
        with pytest.raises(InputError, match="SOLVER.WRITERS: .* cannot start: no key given$"):
            writer.open(0)


def test_names_that_mlflow_refuses_are_changed(run: Run, fake_mlflow: FakeMLflow) -> None:
    (writer,) = build(run, "mlflow")
    writer.open(0)
    writer.write({"iteration": 60, "a,b_val/AP": 1.0})
    assert fake_mlflow.logged == [(60, {"a_b_val/AP": 1.0})]


# ---------------------------------------------------------------- the libraries themselves


def test_wandb_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 20):
        write_and_close(build(run, "wandb")[0], start, start + 20)
    names = [path.name for path in (run.output_dir / "wandb").glob("offline-run-*")]
    run_id = (run.output_dir / "wandb_run").read_text().strip()
    assert len(names) >= 1 and all(name.endswith(run_id) for name in names)


def test_mlflow_itself(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    library.set_tracking_uri((tmp_path / "mlruns").as_uri())
    for start in (0, 20):
        write_and_close(build(run, "mlflow")[0], start, start + 20)
    run_id = (run.output_dir / "mlflow_run").read_text().strip()
    history = library.MlflowClient().get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(20, 1.5), (40, 1.5)]
    assert library.get_run(run_id).info.status == "FINISHED"


def test_the_console_writes_lines_for_training_only(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("engine")
    logger.propagate = True
    writer = ConsoleWriter(100)
    with caplog.at_level(logging.INFO, logger="engine"):
        writer.open(0)
        writer.write({"iteration": 20, "val/AP": 0.5})
        writer.write({"iteration": 20, **TRAINING})
        writer.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("iter 20/100  eta 0:01:00  loss 1.5000") and "memory" not in line
