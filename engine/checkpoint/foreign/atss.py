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


def recognises(names: Iterable[str]) -> bool:
    return any(strip_wrappers(name).startswith(("backbone.", "rpn.", "roi_heads.")) for name in names)


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's state dict under our names; its stored anchors are dropped, its background comes last."""
    named = {strip_wrappers(name): tensor for name, tensor in tensors.items()}
    named = {name: tensor for name, tensor in named.items() if not name.startswith(_CELL_ANCHORS)}
    return background_last(named)


def background_last(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Box heads with the background as class 0, which has boxes, too, as ours have it: last, and without boxes.

    Heads that are ours already stay. With two classes, those with a box for each class of ours look like those with one
    for all of theirs; they stay, too.
    """
    scores, boxes = (f"roi_heads.box.predictor.{layer}" for layer in ("cls_score", "bbox_pred"))
    if f"{scores}.bias" not in tensors or f"{boxes}.bias" not in tensors:
        return tensors
    num_scores, num_boxes = len(tensors[f"{scores}.bias"]), len(tensors[f"{boxes}.bias"]) // 4
    if num_boxes != num_scores and not (num_boxes == 2 and num_scores > 3):
        return tensors
    changed = {}
    for kind in ("weight", "bias"):
        changed[f"{scores}.{kind}"] = tensors[f"{scores}.{kind}"].roll(-1, dims=0)
        changed[f"{boxes}.{kind}"] = tensors[f"{boxes}.{kind}"][4:]
    return {**tensors, **changed}
