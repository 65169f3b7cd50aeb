"""A loss or gradients that are not finite: which images gave them, and the batches to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoint import io
from engine.data.loader import Batch
from engine.errors import InputError


class NonFinite(InputError):
    """Nothing was updated.

    Args:
        what: is not finite.
        losses: scalars by name.
        batches: those that gave them, on the model's device.
    """

    def __init__(self, what: str, losses: Mapping[str, Tensor], batches: Sequence[Batch]) -> None:
        parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        ids = ", ".join(str(target.image_id) for batch in batches for target in batch.targets)
        super().__init__(f"{what} not finite ({parts}) at images {ids}: lower SOLVER.BASE_LR or check these images")
        self.batches = batches


def save_batches(path: Path, batches: Sequence[Batch]) -> str:
    """Write batches as the model saw them, for `torch.load(path, weights_only=True)`; a sentence on what came of it.

    "batches" is a list of dictionaries: "images" (N, 3, H, W) float32, normalised and padded; "sizes", N pairs (height,
    width) without the padding; "targets", N dictionaries of "image_id", "boxes" (M, 4) xyxy, "labels" (M,) and
    "ignore" (M,).
    """
    try:
        io.save(path, {"batches": [_content(batch.to("cpu")) for batch in batches]})
    except InputError as error:  # what went wrong in the training matters more than a full disk
        return str(error)
    return f"they are in {path} as the model saw them"


def _content(batch: Batch) -> dict[str, Any]:
    targets = [
        {"image_id": each.image_id, "boxes": each.boxes, "labels": each.labels, "ignore": each.ignore}
        for each in batch.targets
    ]
    return {"images": batch.images.tensor, "sizes": [list(size) for size in batch.images.sizes], "targets": targets}
