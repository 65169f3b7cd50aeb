"""What the runtime reads of an ONNX file itself: its metadata, and whether all of the model is in the file.

An ONNX file is a protobuf message. Only the few fields that matter here are followed (onnx.proto3 of the ONNX project
gives their numbers); weights are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.errors import InputError
from engine.files import replacing

_METADATA = 14  # of a model; an entry has a key (1) and a value (2)
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_TENSOR = "tensor"
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
"""Message -> number of a field -> the message that it holds, for all messages that tensors may be in."""
_DEEPEST = 100
"""Nested messages, the limit of protobuf itself."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_onnx(path: Path) -> tuple[bytes, dict[str, str]]:
    """An ONNX file as bytes, and its metadata.

    Raises:
        InputError: it cannot be read, is no ONNX file, is incomplete, or keeps weights in other files: these could lie
            anywhere, and a file of ours has none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    try:
        metadata = dict(_entry(value) for number, _, value in _fields(memoryview(data)) if number == _METADATA)
        is_whole = not _has_external_data(memoryview(data), "model")
        is_model = any(number == 7 for number, _, _ in _fields(memoryview(data)))
    except (ValueError, IndexError):
        is_model = False
    if not is_model:
        raise InputError(f"{path}: damaged, or not an ONNX file; export the model again")
    if not is_whole:
        raise InputError(f"{path}: keeps weights in other files, which are not read; export the model into one file")
    return data, metadata


def write_metadata(path: Path, key: str, value: str) -> None:
    """Replace an entry of the metadata of an ONNX file, atomically; all else keeps its bytes.

    Raises:
        InputError: see `read_onnx`, or the file cannot be written.
    """
    data, _ = read_onnx(path)
    view = memoryview(data)
    entry = b"".join(_field(number, text.encode()) for number, text in ((1, key), (2, value)))
    with replacing(path) as file:
        start = 0
        for number, end, content in _fields(view):
            if not (number == _METADATA and _entry(content)[0] == key):
                file.write(view[start:end])
            start = end
        file.write(_field(_METADATA, entry))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _written(len(content)) + content


def _written(value: int) -> bytes:
    """A number as protobuf writes it: seven bits per byte, the lowest first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(number, where it ends, content) of each field; the content of a number is its bytes.

    Raises:
        ValueError, IndexError: this is no message.
    """
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind, start = tag & 7, place
        if kind == _VARINT:
            _, place = _number(message, place)
        elif kind == _BYTES:
            length, start = _number(message, place)
            place = start + length
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type: {kind}")
        if place > len(message) or not tag >> 3:
            raise ValueError("a field ends beyond its message")
        yield tag >> 3, place, message[start:place]


def _number(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _entry(content: memoryview) -> tuple[str, str]:
    texts = {number: str(value, "utf-8") for number, _, value in _fields(content)}
    return texts.get(1, ""), texts.get(2, "")


def _has_external_data(message: memoryview, kind: str, depth: int = 0) -> bool:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if kind == _TENSOR:
        return any(
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bytes(value) != b"\0")
            for number, _, value in _fields(message)
        )
    parts = _PARTS[kind]
    return any(
        _has_external_data(content, parts[number], depth + 1)
        for number, _, content in _fields(message)
        if number in parts
    )
