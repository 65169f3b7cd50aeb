"""The registry of weights formats, and what a format is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from engine.registry import Registry

FORMATS = Registry("weights FORMATS")
"""Formats of weights by name: what is registered is a `Format`, a module or a class that is never instantiated.

To recognise a file, the built-in ones are tried in the order of their registration, then those of `IMPORTS` in theirs,
then `FALLBACKS`, whose names are ours.
"""

FALLBACKS = ("atss", "plain")


class Format(Protocol):
    """How the weights of another project become ours.

    It may also have

    - `conventions(tensors)`: keys of the configuration and the values with which the weights give the same results,
      such as `INPUT.PIXEL_MEAN`; for translated tensors;
    - `NORM_EPS`, the eps of all of its batch norms, or `norm_eps(tensors)`, the eps by the name of the layer; for
      translated tensors. Without either, layers whose own eps is neither 1e-5 (trainable) nor 0 (frozen) are taken to
      have had the same one in the file;
    - `place(tensors, names)`: translated tensors under the names of the model, where these depend on the model;
    - `class_names(meta)`: the foreground classes in the order of the labels, from the `meta` of the file, or None.

    Attributes:
        SIGNATURE: regular expressions; a file has this format if each matches the beginning of one of its names.
    """

    SIGNATURE: tuple[str, ...]

    @staticmethod
    def translate(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """The state dict under our names (`backbone.body.` and the names of the body), as a new dictionary."""


def as_names(signature: Any) -> tuple[str, ...]:
    """A single pattern is a signature too."""
    return (signature,) if isinstance(signature, str) else tuple(signature)
