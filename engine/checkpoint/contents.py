"""What a checkpoint may hold: plain tensors, and under the keys of ours what the engine later reads there.

Checked when a file is loaded, so that whatever uses it (testing, resuming, averaging, publishing) can rely on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint.restricted_pickle import brief
from engine.errors import shown
from engine.spelling import is_text

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8)
_DTYPES += (torch.int64, torch.int32, torch.int16, torch.int8)
_MAX_REPEATED = 1 << 20  # numbers of a tensor that its storage need not hold, such as an expanded buffer


def fault(content: Any, is_ours: bool) -> str | None:
    """What keeps the content of a checkpoint from being used, or None."""
    for name, tensor in tensors_in(content):
        if reason := _tensor_fault(tensor):
            return f"{brief(name)} is {reason}"
    for key, (is_right, words) in _OURS.items() if is_ours else ():
        value = content.get(key)
        if value is not None and not is_right(value):
            return f"its {key} must be {words}, not {brief(shown(value))}"
    return None


def tensors_in(content: Any) -> Iterator[tuple[str, Tensor]]:
    """(path of keys, tensor) in nested dictionaries, lists and tuples, which may hold themselves."""
    waiting, seen = [("", content)], set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{brief(key)}".lstrip("."), each) for key, each in items]


def _tensor_fault(tensor: Tensor) -> str | None:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu":
        return "sparse, quantized or without numbers; store plain dense tensors"
    if tensor.dtype not in _DTYPES:
        return f"of type {str(tensor.dtype).removeprefix('torch.')}, which weights do not have"
    num_bytes = tensor.numel() * tensor.element_size()
    if tensor.numel() > _MAX_REPEATED and num_bytes > tensor.untyped_storage().nbytes():
        return f"a view that repeats its numbers to {num_bytes / 1e9:.1f} GB; store it without"
    return None


def _is_mapping_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, Mapping) and all(_is_name(key) and is_right(each) for key, each in value.items())
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and is_text(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_name, value)) and len(set(value)) == len(value)


def _are_thresholds(value: Any) -> bool:
    return isinstance(value, Mapping) and _is_mapping_of(_has_threshold)(value.get("classes", {}))


def _has_threshold(entry: Any) -> bool:
    threshold = entry.get("threshold", "") if isinstance(entry, Mapping) else ""
    is_number = type(threshold) in (int, float) and math.isfinite(threshold)
    return threshold is None or is_number


def _is_eps(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_setting(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_setting, value))
    return type(value) in (str, bool, int, float)


_OURS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_mapping_of(_is_tensor), "tensors by name"),
    "training_model": (_is_mapping_of(_is_tensor), "tensors by name"),
    "class_names": (_are_names, "a list of different names"),
    "thresholds": (_are_thresholds, "the content of thresholds.json"),
    "conventions": (_is_mapping_of(_is_setting), "keys of the configuration with plain values"),
    "norm_eps": (_is_mapping_of(_is_eps), "numbers from 0 on by name of the layer"),
    "config": (lambda value: isinstance(value, str), "YAML text"),
    "iteration": (_is_count, "a number of iterations"),
    "ema_updates": (_is_count, "a number of steps"),
    "optimizer_name": (_is_name, "a name"),
    "parameter_names": (_are_names, "a list of different names"),
    "optimizer": (lambda value: isinstance(value, dict), "the state of an optimizer"),
    "scaler": (lambda value: isinstance(value, dict), "the state of a loss scale"),
    "hooks": (_is_mapping_of(lambda state: isinstance(state, dict)), "states by name"),
}
"""Key of our checkpoints -> what its value must be, if there is one, and the same in words."""
