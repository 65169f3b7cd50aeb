"""Writers of training figures: the console, metrics.jsonl, and the trackers of `SOLVER.WRITERS`."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import yaml
from tqdm import tqdm

from engine.errors import InputError
from engine.files import parse_json, write_text
from engine.log import CONFIG_FILE, ON_BAR, get_logger
from engine.registry import Registry
from engine.training.hooks import Run

METRICS_FILE = "metrics.jsonl"

Record = Mapping[str, int | float | None]
"""Figures by name, None if not finite, and "iteration", the number of iterations done.

For training: "lr", "loss" and its parts, "time" and "data_time" (seconds per iteration), "eta_seconds", "memory_mb".
For validation: "NAME/AP", "NAME/loss" and so on for a data set NAME.
"""

WRITERS = Registry("WRITERS")
"""Writers for `SOLVER.WRITERS`: (run: Run) -> Writer. They are created on all processes and opened on the main one."""


class Writer:
    """Receives records; override what you need."""

    def open(self, start: int) -> None:
        """`start`: iterations done before. Records of later iterations will be written again, so drop them."""

    def write(self, record: Record) -> None:
        """Write a record; iterations never decrease."""

    def close(self) -> None:
        """Called at the end, also after an error, if `open` succeeded."""


# ---------------------------------------------------------------- always used


class MetricsFile(Writer):
    """One JSON object per line in `metrics.jsonl`.

    Args:
        data: the summary of the training data, which becomes the first line: {"iteration": 0, "data": data}.

    Raises:
        InputError: in `open` and `write`, the file cannot be written.
    """

    def __init__(self, output_dir: Path, data: Mapping[str, Any] | None = None) -> None:
        self.path, self.data = output_dir / METRICS_FILE, data
        self.file: TextIO | None = None

    def open(self, start: int) -> None:
        drop_records_after(self.path, start)
        try:
            self.file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error
        if self.data is not None and not self.file.tell():
            self._write_line({"iteration": 0, "data": self.data})

    def write(self, record: Record) -> None:
        self._write_line(record)

    def _write_line(self, row: Mapping[str, Any]) -> None:
        try:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()  # a killed process must not lose records
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); continue with --resume") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk, which `write` has already reported
            self.file.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, without incomplete lines of a killed process and values that are not numbers.

    The summary of the data, which is its first line, is no record.

    Raises:
        InputError: the file cannot be read.
    """
    rows = (row for _, row in _lines(path) if "data" not in row)
    return [{name: x for name, x in row.items() if x is None or _is_number(x)} for row in rows]


def drop_records_after(path: Path, iteration: int) -> None:
    """Keep the lines of `path` up to `iteration`; an incomplete last line is dropped too."""
    if path.exists():
        write_text(path, "".join(line + "\n" for line, row in _lines(path) if row["iteration"] <= iteration))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a `metrics.jsonl` that are whole, and the object in each."""
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("iteration")) is int and abs(row["iteration"]) < 2**63:
            yield line, row


def _is_number(value: Any) -> bool:
    """NaN and infinity included; not True, which is an int too, and not an integer that no float can hold."""
    return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)


class ConsoleWriter(Writer):
    """A log line for each training record; on a terminal a progress bar instead, and the line only in log.txt."""

    def __init__(self, max_iter: int) -> None:
        self.max_iter = max_iter
        self.logger = get_logger(__name__)
        self.bar: tqdm | None = None

    def open(self, start: int) -> None:
        is_hidden = not sys.stderr.isatty()
        self.bar = tqdm(total=self.max_iter, initial=start, desc="train", disable=is_hidden, dynamic_ncols=True)

    def advance(self) -> None:
        """One iteration was done."""
        if self.bar is not None:
            self.bar.update()

    def write(self, record: Record) -> None:
        if "time" not in record:  # a validation record; validation logs its own table
            return
        self.bar.set_postfix_str(_beside_the_bar(record), refresh=False)
        self.logger.info(_line(record, self.max_iter), extra={ON_BAR: not self.bar.disable})

    def close(self) -> None:
        self.bar.close()


def _line(record: Record, max_iter: int) -> str:
    eta = timedelta(seconds=record["eta_seconds"])
    losses = "  ".join(f"{name} {value:.4f}" for name, value in record.items() if name.startswith("loss"))
    return (
        f"iter {record['iteration']}/{max_iter}  eta {eta}  {losses}  lr {record['lr']:.3g}  "
        f"time {record['time']:.3f}  data {record['data_time']:.3f}"
        + (f"  memory {record['memory_mb']} MB" if "memory_mb" in record else "")
    )


def _beside_the_bar(record: Record) -> str:
    """A short form of the log line; the bar itself shows iterations and times."""
    parts = " ".join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in record.items() if k.startswith("loss_"))
    waiting = record["data_time"] / max(record["time"], 1e-9)
    return f"loss {record['loss']:.3f} ({parts}), lr {record['lr']:.2g}, data {waiting:.0%}" + (
        f", {record['memory_mb']} MB" if "memory_mb" in record else ""
    )


# ---------------------------------------------------------------- optional


def _imported(package: str, module: str = "") -> ModuleType:
    try:
        return importlib.import_module(module or package)
    except ImportError as error:
        raise InputError(f"SOLVER.WRITERS: {package} cannot be imported ({error}): pip install {package}") from error


@WRITERS.register("tensorboard")
class TensorBoardWriter(Writer):
    """Event files in `OUTPUT_DIR/tensorboard`; a resumed run hides older values of the iterations that it repeats."""

    def __init__(self, run: Run) -> None:
        self.folder, self.library = run.output_dir / "tensorboard", _imported("tensorboard", "torch.utils.tensorboard")

    def open(self, start: int) -> None:
        self.events = self.library.SummaryWriter(str(self.folder), purge_step=start + 1)

    def write(self, record: Record) -> None:
        for name, value in _figures(record).items():
            self.events.add_scalar(name, value, record["iteration"])
        self.events.flush()

    def close(self) -> None:
        self.events.close()


@WRITERS.register("wandb")
class WandbWriter(Writer):
    """A run of Weights & Biases, configured by its environment variables (WANDB_PROJECT, WANDB_MODE, ...).

    It has figures over "iteration", and config.yaml as the configuration. A resumed training continues its W&B run.
    """

    def __init__(self, run: Run) -> None:
        self.output_dir, self.library = run.output_dir, _imported("wandb")

    def open(self, start: int) -> None:
        config = self.output_dir / CONFIG_FILE
        try:
            self.run = self.library.init(
                dir=str(self.output_dir),
                name=self.output_dir.resolve().name,
                config=yaml.safe_load(config.read_text(encoding="utf-8")) if config.exists() else None,
                id=_known_run(self.output_dir, "wandb", start),
                resume="allow",
            )
        except self.library.Error as error:
            raise _refused("wandb", error) from error
        _remember_run(self.output_dir, "wandb", self.run.id)
        self.run.define_metric("iteration")
        self.run.define_metric("*", step_metric="iteration")  # W&B's own step cannot go back, but a resumed run does

    def write(self, record: Record) -> None:
        self.run.log({"iteration": record["iteration"], **_figures(record)})

    def close(self) -> None:
        self.run.finish(exit_code=int(_is_failing()))


@WRITERS.register("mlflow")
class MLflowWriter(Writer):
    """A run of MLflow, configured by its environment variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...).

    It has metrics by step, and config.yaml as an artifact. A resumed training continues its MLflow run.
    """

    def __init__(self, run: Run) -> None:
        self.output_dir, self.library = run.output_dir, _imported("mlflow")

    def open(self, start: int) -> None:
        known = _known_run(self.output_dir, "mlflow", start)
        config = self.output_dir / CONFIG_FILE
        try:
            run = self.library.start_run(run_id=known, run_name=None if known else self.output_dir.resolve().name)
            if config.exists():
                self.library.log_artifact(str(config))
        except self.library.MlflowException as error:
            raise _refused("mlflow", error) from error
        _remember_run(self.output_dir, "mlflow", run.info.run_id)

    def write(self, record: Record) -> None:
        figures = {re.sub(r"[^\w\-./ ]", "_", name): value for name, value in _figures(record).items()}
        self.library.log_metrics(figures, step=record["iteration"])

    def close(self) -> None:
        self.library.end_run("FAILED" if _is_failing() else "FINISHED")


def _figures(record: Record) -> dict[str, int | float]:
    """The figures that a tracker can plot."""
    return {name: value for name, value in record.items() if value is not None and name != "iteration"}


def _known_run(output_dir: Path, tracker: str, start: int) -> str | None:
    """The tracker's id of the run to resume, or None."""
    path = output_dir / f"{tracker}_run"
    return path.read_text().strip() or None if start and path.exists() else None


def _remember_run(output_dir: Path, tracker: str, run_id: str) -> None:
    write_text(output_dir / f"{tracker}_run", f"{run_id}\n")


def _refused(tracker: str, error: Exception) -> InputError:
    return InputError(f"SOLVER.WRITERS: {tracker} cannot start: {first_line(error)}")


def first_line(error: Exception) -> str:
    """The first line of the message of an exception, or the name of its class."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _is_failing() -> bool:
    """Whether the caller runs in a `finally` because of an exception."""
    return sys.exc_info()[0] is not None
