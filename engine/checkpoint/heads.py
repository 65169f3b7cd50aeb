"""Classification heads for other classes: rows taken by class name, or those of the first classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import InputError
from engine.registry import Registry

SURGERIES = Registry("SURGERIES")
"""What `MODEL.WEIGHT_SURGERY` names: (tensors, ...) -> tensors by name, as a new dictionary.

Besides the tensors of the file, a surgery gets those of these values that it has parameters for: `num_classes`, the
foreground classes of the model; `num_anchors`, anchors per cell of a one-stage detector, else 1; `class_names`, those
of the model, or []; `source`, the URI of the weights.
"""

# Layers with one row per class: sigmoid heads repeat all classes for each anchor of a cell, softmax heads end with the
# background. Box heads have four rows per class, or four rows that all classes share.
_KINDS = {"cls_logits": "sigmoid", "cls_score": "softmax", "predictor.bbox_pred": "boxes"}


def head_kind(name: str) -> str | None:
    """ "sigmoid", "softmax" or "boxes" for a parameter of a layer with rows for classes, None for all others."""
    layer, _, last = f".{name}".rpartition(".")
    kind = next((kind for ending, kind in _KINDS.items() if layer.endswith(f".{ending}")), None)
    return kind if last in ("weight", "bias") else None


def rows_by_class(name: str, num_rows: int, num_classes: int) -> Tensor | None:
    """Row indices of a classification head, arranged by class.

    Returns:
        int64 (K, A) for a sigmoid head with A anchors per cell, (K + 1, 1) with background last for a softmax head,
        (K, 4) for a box head; None if `num_rows` does not fit `num_classes` (K).
    """
    kind = head_kind(name)
    if kind == "softmax" and num_rows == num_classes + 1:
        return torch.arange(num_rows)[:, None]
    if kind == "boxes" and num_rows == 4 * num_classes:
        return torch.arange(num_rows).reshape(-1, 4)
    if kind == "sigmoid" and num_classes > 0 and num_rows % num_classes == 0:
        return torch.arange(num_rows).reshape(-1, num_classes).t()  # rows are anchor-major
    return None


def heads_of(names: Iterable[str]) -> dict[str, str]:
    """The parameters with rows for classes and their `head_kind`, without the class-agnostic head of an RPN."""
    names = list(names)
    kinds = {name: kind for name in names if (kind := head_kind(name))}
    has_second_stage = "softmax" in kinds.values() or any(name.startswith("roi_heads.") for name in names)
    # Then the sigmoid head of the first stage only proposes regions.
    return {
        name: kind
        for name, kind in kinds.items()
        if not (has_second_stage and kind == "sigmoid" and not name.startswith("roi_heads."))
    }


def heads_fit(tensors: Mapping[str, Tensor], num_classes: int) -> bool:
    """Whether the classification heads of a detector can have `num_classes` foreground classes."""
    for name, kind in heads_of(tensors).items():
        rows = rows_by_class(name, len(tensors[name]), num_classes)  # (K, A) of a sigmoid head
        num_anchors = _anchors_per_cell(tensors, name)
        if kind != "boxes" and rows is None:
            return False
        if kind == "sigmoid" and num_anchors is not None and rows.shape[1] != num_anchors:
            return False
    return True


def _anchors_per_cell(tensors: Mapping[str, Tensor], name: str) -> int | None:
    """As the box branch beside the sigmoid head `name` says; None if there is none that is known."""
    if name.replace("cls_logits", "bbox_bins") in tensors:  # GFL's has one anchor per cell and many bins
        return 1
    boxes = tensors.get(name.replace("cls_logits", "bbox_pred"))
    return None if boxes is None else len(boxes) // 4


def take_classes(
    name: str, file: Tensor, model: Tensor, file_classes: Sequence[str], model_classes: Sequence[str]
) -> tuple[Tensor, list[str]] | None:
    """The head `name` of the model, with the rows of those classes that the file also has.

    Returns:
        The new value (shape and dtype of `model`) and the classes taken, or None if rows and classes do not fit.
    """
    from_rows = rows_by_class(name, len(file), len(file_classes))  # (K file, A)
    to_rows = rows_by_class(name, len(model), len(model_classes))  # (K model, A)
    if from_rows is None or to_rows is None or from_rows.shape[1] != to_rows.shape[1]:
        return None
    is_one_box = head_kind(name) == "boxes" and len(file) == len(model) == 4  # for all classes, or for the only one
    if is_one_box or file.shape[1:] != model.shape[1:]:
        return None
    value = model.detach().clone()
    taken = [label for label in model_classes if label in file_classes]
    pairs = [(file_classes.index(label), model_classes.index(label)) for label in taken]
    if pairs and head_kind(name) == "softmax":
        pairs.append((len(file_classes), len(model_classes)))
    for source, target in pairs:
        value[to_rows[target]] = file[from_rows[source]].to(value)
    return value, taken


@SURGERIES.register("keep_first_classes")
def keep_first_classes(tensors: dict[str, Tensor], num_classes: int, num_anchors: int = 1) -> dict[str, Tensor]:
    """Weights whose classification heads keep only their first classes (and the background of a softmax).

    A way to start a model with few foreground classes from a COCO model without initialising anything anew. Sigmoid
    heads have rows for `num_anchors` anchors per cell (ASPECT_RATIOS x SCALES_PER_OCTAVE).

    Raises:
        InputError: there is no such head, or it has fewer classes.
    """
    result = dict(tensors)
    heads = heads_of(tensors)
    if not set(heads.values()) - {"boxes"}:
        raise InputError("MODEL.WEIGHT_SURGERY: the weights have no classification head (cls_logits, cls_score)")
    for name, kind in heads.items():
        num_rows = len(tensors[name])
        if kind == "boxes" and num_rows == 4:  # one box for all classes
            continue
        present = {"softmax": num_rows - 1, "boxes": num_rows // 4}.get(kind, num_rows // num_anchors)
        rows = rows_by_class(name, num_rows, present)
        if rows is None or present < num_classes:
            raise InputError(f"MODEL.WEIGHT_SURGERY: {name} has {present} classes, cannot keep {num_classes}")
        kept = rows[:num_classes]
        if kind == "softmax":
            kept = torch.cat([kept, rows[-1:]])
        kept = kept.reshape(-1) if kind == "boxes" else kept.t().reshape(-1)
        result[name] = tensors[name][kept].clone()
    return result
