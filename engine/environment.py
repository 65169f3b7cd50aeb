"""Hardware and software of a run, for logs and bug reports; `python -m engine.environment` prints it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision

from engine.device import cpu_supports, num_cpus

PACKAGE = Path(__file__).resolve().parent
TIMEOUT = 10  # seconds for git and nvidia-smi


def environment_report() -> str:
    """Versions, processor, GPUs, processes and the command, one line for each."""
    bfloat16 = {True: "native", False: "emulated, which is slow", None: "unknown"}[cpu_supports(torch.bfloat16)]
    return "\n".join(
        [
            _versions(),
            f"CPU: {cpu_name()}, {num_cpus()} cores, {torch.get_num_threads()} threads, bfloat16 {bfloat16}",
            f"GPU: {_gpus()}",
            f"processes: {processes(os.environ, sys.argv)}, on {platform.node()}",
            f"command: {shlex.join(sys.orig_argv)}",
        ]
    )


def engine_version() -> str:
    return sys.modules[__package__].__version__


def _versions() -> str:
    commit = git_commit(PACKAGE.parent)
    engine = engine_version()
    return (
        f"engine {engine}{f' (commit {commit})' if commit else ''}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, NumPy {np.__version__}, "
        f"OpenCV {cv2.__version__}, {platform.platform()}"
    )


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, "-dirty" if files changed; None if it is not the root of a repository."""
    if not (folder / ".git").exists():
        return None
    return _output_of(["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"])


def cpu_name() -> str:
    """The model name, where the system provides it."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return named[1].strip() if named else platform.processor() or platform.machine()


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use" if torch.backends.cuda.is_built() else "none; torch was built without CUDA"
    properties = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    kinds = Counter(f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in properties)
    driver = _output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return (
        f"{'; '.join(f'{count} x {kind}' for kind, count in kinds.items())}; "
        f"driver {driver.splitlines()[0] if driver else 'unknown'}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


def processes(environment: Mapping[str, str], arguments: Sequence[str] = ()) -> str:
    """The number of processes and what started them, from the variables and options that launchers set.

    Example:
        >>> processes({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "1"})
        '4 on 2 machines, started by torchrun (restart 1)'
        >>> processes({"SLURM_JOB_ID": "77"})
        '1, in Slurm job 77'
    """
    number = int(environment.get("WORLD_SIZE", 1))
    machines = number // int(environment.get("LOCAL_WORLD_SIZE", number))
    text = f"{number} on {machines} machines" if machines > 1 else str(number)
    if "TORCHELASTIC_RESTART_COUNT" in environment:
        is_old = any(argument.startswith(("--local_rank", "--local-rank")) for argument in arguments)
        restart = environment["TORCHELASTIC_RESTART_COUNT"]
        text += f", started by {'torch.distributed.launch' if is_old else 'torchrun'}"
        text += f" (restart {restart})" if restart != "0" else ""
    elif number > 1:
        text += ", started by another launcher"
    if "SLURM_JOB_ID" in environment:
        text += f", in Slurm job {environment['SLURM_JOB_ID']}"
    return text


def _output_of(command: Sequence[str]) -> str | None:
    """What a program prints; None if it is missing, fails or takes longer than `TIMEOUT`."""
    if shutil.which(command[0]) is None:
        return None
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # git must not write to the repository
    try:
        answer = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


if __name__ == "__main__":
    print(environment_report())
