"""What this machine can compute with: CPUs, half-precision arithmetic, GPU memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from engine.errors import InputError


def num_cpus() -> int:
    """CPUs that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still get: of the GPU, or of the machine or container; 0 if it is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # "max" without a limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(limit - used, 0))
    return min(found, default=0)


def cpu_supports(dtype: torch.dtype) -> bool | None:
    """Whether the CPU has arithmetic for bfloat16 or float16; None if this build of torch cannot tell."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    is_supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)  # missing without oneDNN
    return None if is_supported is None else is_supported()


def is_native(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `device` has arithmetic for this half-precision type, as far as torch can tell.

    A CPU without it (most before 2023) emulates it, and convolutions take thirty times as long as in float32.
    """
    return device.type != "cpu" or cpu_supports(dtype) is not False


@contextmanager
def explaining_out_of_memory(advice: str, phase: str = "") -> Iterator[None]:
    """Turn an out-of-memory error of the GPU in the block into one line with `phase` ("in testing") and `advice`.

    Raises:
        InputError: the GPU ran out of memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(f"the GPU ran out of memory{' ' * bool(phase)}{phase}: {advice}") from error
