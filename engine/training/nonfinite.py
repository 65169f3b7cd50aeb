"""The error for a loss or gradients that are not finite, with their images; saving these batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoint import io
from engine.data.batch import Batch
from engine.errors import InputError, listed


class NonFinite(InputError):
    """A loss or gradients that are not finite; nothing was updated.

    `what` is the part that is not finite, with its verb, such as "the loss is". `losses` are scalars by name. The
    `batches` of this iteration are on the model's device.
    """

    def __init__(self, what: str, losses: Mapping[str, Tensor], batches: Sequence[Batch]) -> None:
        parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        ids = listed(target.image_id for batch in batches for target in batch.targets)
        super().__init__(f"{what} not finite ({parts}) at images {ids}: lower SOLVER.BASE_LR or check these images")
        self.batches = batches


def save_batches(path: Path, batches: Sequence[Batch]) -> str:
    """Write batches as the model saw them, for `torch.load(path, weights_only=True)`; returns a sentence about it.

    "batches" is a list of dictionaries: "images" (N, C, H, W) float32, normalised and padded; "sizes", N pairs (height,
    width) without padding; "targets", N dictionaries of "image_id", "boxes" (M, 4) xyxy, "labels" (M,) and
    "ignore" (M,).
    """
    try:
        io.save(path, {"batches": [_content(batch.to("cpu")) for batch in batches]})
    except InputError as error:  # a full disk must not hide the error of the training
        return str(error)
    return f"they are in {path} as the model saw them"


def _content(batch: Batch) -> dict[str, Any]:
    names = ("image_id", "boxes", "labels", "ignore")
    targets = [{name: getattr(each, name) for name in names} for each in batch.targets]
    return {"images": batch.images.tensor, "sizes": [list(size) for size in batch.images.sizes], "targets": targets}
