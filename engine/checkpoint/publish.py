"""Checkpoints to publish: only what is needed to use the model, with a hash of the content in the file name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from engine.checkpoint import io
from engine.checkpoint.io import FORMAT
from engine.errors import InputError
from engine.files import sha256

KEPT = ("format", "model", "class_names", "thresholds", "config", "conventions", "norm_eps")
SUFFIXES = (".pth", ".pt", ".safetensors")
HASH_DIGITS = 8


def read_own(path: str | Path, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint of ours.

    Raises:
        InputError: it cannot be read, see `io.load`, or is not ours.
    """
    content = io.load(path, mmap)
    if content.get("format") != FORMAT or not isinstance(content.get("model"), dict):
        raise InputError(f"{path}: not a checkpoint of this engine; convert it first (tools/convert_weights.py)")
    return content


def stripped(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the state of its training (optimizer, hooks, loss scale, weights before averaging).

    Example:
        >>> stripped({"format": "engine-1", "model": {}, "iteration": 7, "optimizer": {}})
        {'format': 'engine-1', 'model': {}}
    """
    kept = {key: content[key] for key in KEPT if key in content}
    # A tensor may be a view of a larger one, which torch.save would write in full.
    return {**kept, "model": {name: tensor.clone() for name, tensor in content["model"].items()}}


def publish(source: Path, output: str | Path, safetensors: bool = False) -> Path:
    """Write `source`, stripped, with its hash in the file name.

    Args:
        source: a checkpoint of ours.
        output: `model.pth` gives `model-1a2b3c4d.pth`, with the first digits of the SHA-256 of the file's content. If
            it is a folder, or ends with a slash (`new/`), the name is that of `source`.
        safetensors: write that format, whatever the suffix of `output` is; by default the suffix decides.

    Returns:
        The path of the new file. The same content gives the same name and the same bytes.

    Raises:
        InputError: see `read_own`; the file cannot be written.
    """
    state = stripped(read_own(source))
    is_folder = Path(output).is_dir() or str(output).endswith(("/", os.sep))
    output = Path(output) / source.name if is_folder else Path(output)
    suffix = output.suffix if output.suffix in SUFFIXES else ""
    stem = output.name.removesuffix(suffix)
    suffix = ".safetensors" if safetensors else suffix or ".pth"
    unnamed = output.with_name(f".{stem}.unnamed{suffix}")
    try:
        io.save(unnamed, state)
        named = output.with_name(f"{stem}-{sha256(unnamed)[:HASH_DIGITS]}{suffix}")
        os.replace(unnamed, named)
    except InputError as error:
        raise InputError(str(error).replace(str(unnamed), str(output))) from error
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unnamed.unlink(missing_ok=True)
    return named
