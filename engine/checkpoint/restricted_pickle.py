"""Reads the pickles of Caffe2 and Detectron without running anything in them.

A pickle is a program that can call whatever `find_class` returns. Here that is an ordered dictionary and a few
stand-ins that record and check the arguments meant for NumPy, so that not even NumPy sees unchecked values.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from engine.errors import InputError, printable

_DTYPES = {f"{kind}{size}" for kind, sizes in {"f": "248", "i": "1248", "u": "1248"}.items() for size in sizes} | {"b1"}
MAX_SHOWN = 80  # characters of untrusted text in a message


def brief(text: object) -> str:
    """The beginning of a text from an untrusted file, safe to print on one line, see `errors.printable`.

    Example:
        >>> brief("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    return printable(str(text)[:MAX_SHOWN])


class Refused(Exception):
    """The pickle asked for something other than arrays; the message names it."""

    def __init__(self, what: str) -> None:
        super().__init__(brief(what))


class _DType:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: object, *_: object) -> None:
        if str(name) not in _DTYPES:
            raise Refused(f"a NumPy array of type {str(name)!r}")
        self.name = str(name)
        self.order = "<"

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self.order = order if order in ("<", ">") else "<"

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.name)


class Array:
    """Stands for `numpy.ndarray`."""

    value = np.zeros(0, dtype=np.float32)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.value = Array.of(data, dtype, shape, "F" if fortran else "C").value

    @classmethod
    def of(cls, data: object, dtype: object, shape: object, order: str = "C") -> Array:
        if not isinstance(dtype, _DType):
            raise Refused("a NumPy array of unknown type")
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)  # Python 2 wrote strings
        array = cls()
        array.value = np.frombuffer(raw, dtype.numpy()).reshape(shape, order=order)
        return array

    def tensor(self) -> Tensor:
        native = np.array(self.value, dtype=self.value.dtype.newbyteorder("="), order="C")
        return torch.from_numpy(native)


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode to {str(encoding)!r}")
    return text.encode("latin1")


class _Callable:
    """A callable whose attributes the pickle cannot set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise Refused(f"setting the attribute {name!r} of a function")


_ALLOWED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # as protocols below 3 write an empty string of bytes
    "numpy.dtype": _DType,
    "numpy.ndarray": Array,
}
for _package in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_package}.multiarray._reconstruct"] = lambda *_: Array()  # filled by `__setstate__`
    _ALLOWED[f"{_package}.multiarray.scalar"] = lambda dtype, data: Array.of(data, dtype, ())
    _ALLOWED[f"{_package}.numeric._frombuffer"] = Array.of


class _Unpickler(pickle._Unpickler):
    """Python's own class: the one in C allocates memory for any memo index that a pickle names."""

    def find_class(self, module: str, name: str) -> _Callable:
        qualified = f"{module}.{name}"
        if qualified not in _ALLOWED:
            raise Refused(qualified)
        return _Callable(_ALLOWED[qualified])


def read(file: BinaryIO, source: str) -> object:
    """The object pickled in `file`; a dictionary has tensors for arrays: `{"blobs": {name: tensor}}`.

    Raises:
        InputError: it asks for anything other than arrays (names it), or is damaged; starts with `source`.
    """
    try:
        # A damaged or hostile pickle can raise anything. It cannot do anything else.
        content = _Unpickler(file, encoding="latin1").load()
        return _plain(content, {})
    except Refused as refused:
        raise InputError(
            f"{source}: refused without running anything: the pickle asks for {refused}, which weights do not need"
        ) from None
    except Exception as error:
        reason = brief(error) or type(error).__name__
        raise InputError(f"{source}: not a checkpoint, or a damaged one ({reason}); download it again") from None


def _plain(value: object, done: dict[int, object]) -> object:
    """`value` with tensors for arrays and text for keys; `done` has the containers met before, by their `id`."""
    if isinstance(value, Array):
        return value.tensor()
    if not isinstance(value, dict | list | tuple) or id(value) in done:
        return done.get(id(value), value)
    if isinstance(value, dict):
        done[id(value)] = filled = {}
        filled.update((_text(key), _plain(each, done)) for key, each in value.items())
        return filled
    done[id(value)] = listed = []
    listed.extend(_plain(each, done) for each in value)
    return listed


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
