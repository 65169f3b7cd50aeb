"""The network of an exported file, run by the library of its format. A library is imported when a file needs it.

Shapes: N images, H W, C channels, D detections of each.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from engine.errors import InputError, listed, printable
from engine.runtime.card import CARD_KEY, ModelCard
from engine.runtime.card_file import SUFFIXES, card_of, is_exported, read_card
from engine.runtime.onnx_file import read_onnx

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""boxes (N, D, 4) float32, scores (N, D) float32, labels (N, D) int64, counts (N,) int64, see `card.ModelCard`."""
Network = Callable[[np.ndarray, np.ndarray], Found]
"""(images (N, H, W, C), sizes (N, 2) int64) -> Found. Threads may call it at the same time."""

INPUTS = ("images", "sizes")
OUTPUTS = ("boxes", "scores", "labels", "counts")

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


def open_network(path: str | Path, device: str = "cpu", threads: int = 0) -> tuple[Network, ModelCard]:
    """The network and the card of an exported file, an ONNX file or an OpenVINO model, told apart by the suffix.

    No code of the file's own is run: operators that the library does not have are refused.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; for OpenVINO also its own names ("GPU", "AUTO").
        threads: of the CPU for one call; 0: as the library chooses.

    Raises:
        InputError: the file is missing, damaged or not one of ours, or the library or the device is not there.
    """
    path = Path(path)
    if not is_exported(path):
        names = " or ".join(SUFFIXES)
        raise InputError(f"{path}: not an exported model that this runtime opens; name one that ends in {names}")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name an exported model")
    if threads < 0:
        raise InputError(f"threads must be at least 0, not {threads}")
    return _OPENERS[path.suffix.lower()](path, device, threads)


def _open_onnx(path: Path, device: str, threads: int) -> tuple[Network, ModelCard]:
    data, metadata = read_onnx(path)
    card = card_of(path, metadata.get(CARD_KEY))
    runtime = _library("onnxruntime", path)
    provider = _provider(device, runtime.get_available_providers())
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its errors come as exceptions, which we report
    try:
        session = runtime.InferenceSession(data, options, providers=[provider])
    except Exception as error:  # its own kinds have no common base
        raise InputError(f"{path}: onnxruntime {runtime.__version__} cannot load it: {_reason(error)}") from None
    name = provider if isinstance(provider, str) else provider[0]
    if name not in session.get_providers():  # it goes on without
        raise InputError(f"{name} of onnxruntime cannot be used here (is its driver installed?); use device cpu")
    _check_names(path, [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()])
    _check_type(path, card, session.get_inputs()[0].type, {"uint8": "tensor(uint8)", "float32": "tensor(float)"})

    def run(images: np.ndarray, sizes: np.ndarray) -> Found:
        with _naming(path):
            return tuple(session.run(OUTPUTS, dict(zip(INPUTS, (images, sizes), strict=True))))

    return run, card


def _provider(device: str, available: list[str]) -> str | tuple[str, dict[str, str]]:
    """The part of onnxruntime that runs on `device`, with its number."""
    kind, _, number = device.lower().partition(":")
    name = _PROVIDERS.get(kind)
    if name is None or (number and not number.isdecimal()):
        raise InputError(f"no such device of onnxruntime: {device}; use {', '.join(_PROVIDERS)}")
    if name not in available:
        raise InputError(
            f"onnxruntime has no {name} here (it has {', '.join(available)}); install the package that has it "
            "(onnxruntime-gpu for CUDA), or use device cpu"
        )
    return (name, {"device_id": number}) if number else name


def _open_openvino(path: Path, device: str, threads: int) -> tuple[Network, ModelCard]:
    card = read_card(path)  # before the network is looked at: most files that are none of ours end here
    library = _library("openvino", path)
    core = _core()
    try:
        model = core.read_model(str(path))
    except Exception as error:  # RuntimeError and its own kinds
        raise InputError(f"{path}: openvino {library.__version__} cannot load it: {_reason(error)}") from None
    _check_names(path, _names(model.inputs), _names(model.outputs))
    _check_type(path, card, model.input("images").element_type.get_type_name(), {"uint8": "u8", "float32": "f32"})
    name = device.upper().replace(":", ".")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": card.inference_precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    if name.split(".")[0] not in (*core.available_devices, "AUTO") and name not in core.available_devices:
        raise InputError(f"openvino has no device {device} here; it has {', '.join(core.available_devices)}")
    try:
        compiled = core.compile_model(model, name, settings)
    except Exception as error:
        raise InputError(f"{path}: openvino {library.__version__} cannot compile it: {_reason(error)}") from None
    own = threading.local()  # a request serves one call at a time

    def run(images: np.ndarray, sizes: np.ndarray) -> Found:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        with _naming(path):
            found = own.request.infer(dict(zip(INPUTS, (images, sizes), strict=True)))
        return tuple(np.asarray(found[name]) for name in OUTPUTS)

    return run, card


@cache
def _core() -> Any:
    """OpenVINO's core, which finds its devices again for each one made."""
    return importlib.import_module("openvino").Core()


_OPENERS: Mapping[str, Callable[[Path, str, int], tuple[Network, ModelCard]]] = {
    ".onnx": _open_onnx,
    ".xml": _open_openvino,
}


def _library(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{path}: needs the package {name} ({error}); install it: pip install {name}") from None


def _names(ports: list[Any]) -> list[str]:
    return [next((name for name in (*INPUTS, *OUTPUTS) if name in port.get_names()), "?") for port in ports]


def _check_names(path: Path, inputs: list[str], outputs: list[str]) -> None:
    if sorted(inputs) != sorted(INPUTS) or not set(OUTPUTS) <= set(outputs):
        raise InputError(
            f"{path}: takes {listed(inputs)} and gives {listed(outputs)}, not {listed(INPUTS)} and {listed(OUTPUTS)}; "
            "export the model again"
        )


def _check_type(path: Path, card: ModelCard, given: str, known: Mapping[str, str]) -> None:
    if given != known[card.images.pixels]:
        raise InputError(f"{path}: its network takes {given}, its card says {card.images.pixels}; export it again")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns what a library raises in a run into an `InputError` that names the file."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{path}: its network fails: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a library says, on one line."""
    return printable(" ".join(str(error).split()))
