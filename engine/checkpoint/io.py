"""Checkpoint files: written atomically, read without running code, checked for damage.

Our files end with a CRC-32 of everything before it, stored as the comment of the zip archive. In files of other
programs each entry has a CRC-32, which `torch.load` ignores and `load` checks. Either check takes 0.05 s for 200 MB,
see docs/decisions/checkpoint.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from engine.checkpoint import contents, restricted_pickle
from engine.errors import InputError
from engine.files import replacing
from engine.spelling import did_you_mean

_ZIP = b"PK\x03\x04"
# The magic number at the start of files from before torch used zip.
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
FORMAT = "engine-1"  # the value of `format` in our files

_CRC_KEY = "crc32"
_SEAL = b"engine-crc32:"  # followed by eight hexadecimal digits
_SEAL_LENGTH = len(_SEAL) + 8
_END_LENGTH = 22  # the last record of a zip file without its comment
_CHUNK = 1 << 20

_multiarray = (getattr(np, "_core", None) or np.core).multiarray  # renamed in NumPy 2


class _Forgotten:
    """Stands for an object that other programs pickle next to the weights; its content is discarded."""

    def __setstate__(self, state: object) -> None:
        pass


# What a file may ask for besides what torch allows: NumPy types of random states and measured scalars, which hold only
# data, and the log curves in checkpoints of mmdetection 3.
_ALLOWED: list[Any] = [
    (_Forgotten, "mmengine.logging.history_buffer.HistoryBuffer"),
    np.dtype,
    np.ndarray,
    *[type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")],
    *[
        (getattr(_multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("core", "_core")
    ],
]


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically: whatever happens, `path` has the old content or the new one.

    Args:
        path: `.pth` / `.pt`, or `.safetensors`, which stores `state["model"]` and the small JSON-like rest of `state`,
            but no optimizer state.
        state: nested dictionaries, lists, numbers, strings, tensors and NumPy arrays.

    Raises:
        InputError: disk full or not writable (the previous file is kept).
        TypeError: `state` holds something that `load` would reject.
    """
    path = Path(path)
    blob = _to_safetensors(state) if path.suffix == ".safetensors" else None
    with replacing(path) as file:
        if blob is not None:
            file.write(blob)
            return
        torch.save(state, file)
        file.flush()
        # Fail when the file is written, not weeks later when it is loaded.
        with torch.serialization.safe_globals(_ALLOWED):
            strange = torch.serialization.get_unsafe_globals_in_checkpoint(str(file.name))
        if strange:
            raise TypeError(f"a checkpoint holds tensors and plain values, not {', '.join(sorted(strange))}")
        _seal(Path(file.name))


def load(path: str | Path, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    Reads PyTorch files (zip and older), `.safetensors` and Caffe2 / Detectron pickles, and tells them apart by content,
    not by name.

    With `mmap` the tensors of a zip file stay on disk until they are used. It halves the memory, for callers that copy
    the tensors and then drop them.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, a web page, a pickle that asks for code (names it),
            not a dictionary, or holds what weights do not need (see `contents`).
    """
    path = Path(path)
    try:
        head = _head(path)
        if head.startswith(_ZIP):
            _verify(path)
            content = _torch_load(path, mmap=mmap)
        elif _LEGACY_TORCH in head[:16]:
            content = _torch_load(path, mmap=False)
        elif path.suffix == ".safetensors" or (head[8:9] == b"{" and head[:1] != b"\x80"):
            content = _from_safetensors(path)
        else:
            with open(path, "rb") as file:
                content = restricted_pickle.read(file, str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    is_ours = isinstance(content.get("format"), str) and content["format"] == FORMAT
    if reason := contents.fault(content, is_ours):
        raise InputError(f"{path}: {reason}; use another copy, or save it again")
    if is_ours and "conventions" in content:
        content["conventions"] = _with_tuples(content["conventions"])
    return content


def nearest_file(path: Path) -> str:
    """`; did you mean X?` for a misspelt file name, a note about the folder, or an empty string."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    with contextlib.suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir()]
        empty = "" if names else f"; the folder {path.parent} is empty"
        return empty or did_you_mean(path.name, names, prefix=str(path).removesuffix(path.name))
    return ""


def not_weights(head: bytes) -> str | None:
    """Why a file that starts with `head` cannot be weights, or None."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if not head:
        return "the file is empty; download it again"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "this is a web page, not weights; download it again, with the link to the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not weights; get the file with 'git lfs pull'"
    if not head.strip(b"\0"):
        return "holds only zeros, so the disk or the transfer failed; download it again"
    return None


def _head(path: Path) -> bytes:
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".pth", ".pt", ".pkl"))
        hint = f", such as {path / inside[-1]}" if inside else ""
        raise InputError(f"{path}: is a folder; give a weights file{hint}")
    if not path.exists():
        raise InputError(f"{path}: no such file{nearest_file(path)}")
    if not path.is_file():
        raise InputError(f"{path}: not a regular file")
    with open(path, "rb") as file:
        head = file.read(512)
    if reason := not_weights(head):
        raise InputError(f"{path}: {reason}")
    return head


def _seal(path: Path) -> None:
    """Add a comment to a zip archive that ends with the CRC-32 of all bytes before its digits."""
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)  # the field with the length of the comment, which is 0 so far
        file.write(struct.pack("<H", _SEAL_LENGTH) + _SEAL)
        file.write(b"%08x" % _crc_of_file(file, file.tell()))


def _verify(path: Path) -> None:
    """Check the checksum of the whole file if it has one, otherwise those of its entries."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_LENGTH - _SEAL_LENGTH))
        end, _, seal = file.read().rpartition(_SEAL)
        if not end:
            return _verify_entries(path)
        if seal != b"%08x" % _crc_of_file(file, size - 8):
            raise InputError(f"{path}: damaged or truncated (its checksum is wrong); use another copy")
    _refuse_packed(path)


def _crc_of_file(file: BinaryIO, length: int) -> int:
    """CRC-32 of the first `length` bytes; leaves the file position after them."""
    file.seek(0)
    crc = 0
    while chunk := file.read(min(_CHUNK, length)):  # nothing is left after `length` bytes or at the end of the file
        crc = zlib.crc32(chunk, crc)
        length -= len(chunk)
    return crc


def _verify_entries(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            names = archive.namelist()
    except Exception:  # zipfile fails in many ways on damaged files
        bad, names = "its directory", []
    if bad:
        raise InputError(
            f"{path}: damaged or truncated (checksum of {restricted_pickle.brief(bad)} is wrong); use another copy"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise InputError(f"{path}: a zip archive but not a checkpoint; unpack it if the weights are inside")
    _refuse_packed(path)


def _refuse_packed(path: Path) -> None:
    """A mapped file would give the packed bytes as numbers, and a small one may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except Exception:  # zipfile fails in many ways on damaged files
        raise InputError(f"{path}: damaged or truncated (its directory); use another copy") from None
    if is_packed:
        raise InputError(f"{path}: its entries are compressed, which torch.save does not do; save the weights again")


def _torch_load(path: Path, mmap: bool) -> object:
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that `contents` refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, ...
        raise InputError(f"{path}: {_torch_reason(str(error))}") from None


def _torch_reason(message: str) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", message)
    if asked and asked[1].startswith("torch.nn."):
        return f"holds a whole model object ({asked[1]}), not weights; save model.state_dict() instead"
    if asked:
        return f"refused without running anything: the pickle asks for {asked[1]}, which weights do not need"
    if "TorchScript" in message:
        return "a TorchScript program, not weights; save its state_dict() instead"
    return "damaged, truncated or not a checkpoint; use another copy"


def _to_safetensors(state: dict[str, Any]) -> bytes:
    """`state["model"]` as tensors and the rest as JSON in the metadata, with a CRC-32 over both."""
    rest = {key: value for key, value in state.items() if key != "model"}
    try:
        metadata = {key: json.dumps(value) for key, value in rest.items()}
    except TypeError as error:
        raise TypeError(f"a .safetensors file holds weights and plain values, no optimizer state: {error}") from None
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state["model"].items()}
    metadata[_CRC_KEY] = str(_crc(tensors, metadata))
    return safetensors.torch.save(tensors, metadata)


def _from_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        expected = metadata.pop(_CRC_KEY, None)
        if expected is None and metadata.get("format") != json.dumps(FORMAT):
            return tensors  # written by another program
        if expected != str(_crc(tensors, metadata)):
            raise InputError(f"{path}: damaged (its checksum is wrong); use another copy")
        return {"model": tensors, **{key: json.loads(value) for key, value in metadata.items()}}
    except (OSError, InputError):
        raise
    except Exception:  # safetensors raises its own error class, ValueError, UnicodeDecodeError, ...
        raise InputError(f"{path}: damaged, truncated or not a .safetensors file; use another copy") from None


def _with_tuples(value: Any) -> Any:
    """Configuration values with tuples in place of the lists of JSON (in a .safetensors file)."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _crc(tensors: dict[str, Tensor], metadata: dict[str, str]) -> int:
    crc = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), crc)
        if tensor.numel():
            crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return crc
