"""Where the checks of this folder run: on the GPU.

`CUDA_TESTS_ON=cpu` runs them on the CPU: it proves nothing about a GPU, but shows that the checks themselves work.
"""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("CUDA_TESTS_ON") or "cuda")
ON_GPU = DEVICE.type == "cuda"

needs_device = pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="no GPU here")
needs_gpu = pytest.mark.skipif(not (ON_GPU and torch.cuda.is_available()), reason="no GPU here")


def relative_error(ours: torch.Tensor, theirs: torch.Tensor, floor: float = 0.0) -> float:
    """Norm of the difference over the norm of `theirs`, which counts as at least `floor`."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    size = max(float(theirs.norm()), floor, torch.finfo(torch.float32).tiny)
    return float((ours - theirs).norm()) / size
