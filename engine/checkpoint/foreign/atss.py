"""The reference's `.pth` files: our names, with traces of how it was trained."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_CELL_ANCHORS = "rpn.anchor_generator.cell_anchors."  # recomputed from the configuration in ours


def strip_wrappers(name: str) -> str:
    """A parameter's name without the prefixes that wrapping the model put before it.

    Example:
        >>> strip_wrappers("module._orig_mod.rpn.head.cls_logits.bias")
        'rpn.head.cls_logits.bias'
    """
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def detect(names: Iterable[str]) -> bool:
    return any(strip_wrappers(name).startswith(("backbone.", "rpn.", "roi_heads.")) for name in names)


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's state dict under our names; its stored anchors are dropped."""
    named = {strip_wrappers(name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if not name.startswith(_CELL_ANCHORS)}
