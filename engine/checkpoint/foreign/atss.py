"""The reference's `.pth` files: our names, plus prefixes of wrappers and stored anchors."""

from __future__ import annotations

from torch import Tensor

from engine.checkpoint.foreign.rename import usual_norm_eps

_WRAPPERS = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
# It saves what DistributedDataParallel wraps, and anchors as buffers; a state dict of ours under the same names has
# neither, see `plain`.
SIGNATURE = (
    r"(module\.)*(backbone|rpn|roi_heads)\.",
    r"module\.(backbone|rpn|roi_heads)\.|rpn\.anchor_generator\.cell_anchors\.",
)
norm_eps = usual_norm_eps
_CELL_ANCHORS = "rpn.anchor_generator.cell_anchors."  # ours are computed from the configuration


def strip_wrappers(name: str) -> str:
    """The name of a parameter without the prefixes that wrappers of the model add.

    Example:
        >>> strip_wrappers("module._orig_mod.rpn.head.cls_logits.bias")
        'rpn.head.cls_logits.bias'
    """
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's state dict under our names, without its stored anchors and with the background class last."""
    named = {strip_wrappers(name): tensor for name, tensor in tensors.items()}
    named = {name: tensor for name, tensor in named.items() if not name.startswith(_CELL_ANCHORS)}
    return background_last(named)


def background_last(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the background of box heads from class 0, where it has boxes too, to the last class, without boxes.

    Heads in our layout are returned unchanged. With two foreground classes, our heads with one box per class look like
    the reference's heads with one box for all classes; these are returned unchanged too.
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
