from __future__ import annotations

import os

import pytest
import torch

from engine.device import cpu_supports, explaining_out_of_memory, is_native, num_cpus
from engine.errors import InputError

CPU = torch.device("cpu")


def test_a_gpu_and_a_cpu_with_the_arithmetic_are_native(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_native(torch.device("cuda"), torch.bfloat16)
    for answer in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda answer=answer: answer)
        assert cpu_supports(torch.bfloat16) is is_native(CPU, torch.bfloat16) is answer


def test_a_build_of_torch_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert cpu_supports(torch.float16) is None and is_native(CPU, torch.float16)


def test_num_cpus() -> None:
    assert 1 <= num_cpus() <= os.cpu_count()


def test_out_of_memory_becomes_one_line_with_advice() -> None:
    message = "^the GPU ran out of memory: lower the sizes$"
    with pytest.raises(InputError, match=message), explaining_out_of_memory("lower the sizes"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\n20 GiB")
    with pytest.raises(RuntimeError, match="^other$"), explaining_out_of_memory("lower the sizes"):
        raise RuntimeError("other")
