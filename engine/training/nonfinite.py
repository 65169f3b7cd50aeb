"""A loss that is not finite: which images gave it, and the batch to look at."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from engine.checkpoint import io
from engine.data.loader import Batch
from engine.errors import InputError


class NonFiniteLoss(InputError):
    """Nothing was updated. `batch` is the one that gave it, on the model's device."""

    def __init__(self, losses: dict[str, Tensor], batch: Batch) -> None:
        parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        ids = ", ".join(str(target.image_id) for target in batch.targets)
        super().__init__(
            f"the loss is not finite ({parts}) at images {ids}: lower SOLVER.BASE_LR or check these images"
        )
        self.batch = batch


def save_batch(path: Path, batch: Batch) -> str:
    """Write a batch as the model saw it, for `torch.load(path, weights_only=True)`; a sentence on what came of it.

    Keys: "images" (N, 3, H, W) float32, normalised and padded; "sizes", N pairs (height, width) without the padding;
    "targets", N dictionaries of "image_id", "boxes" (M, 4) xyxy, "labels" (M,) and "ignore" (M,).
    """
    batch = batch.to("cpu")
    targets = [
        {"image_id": each.image_id, "boxes": each.boxes, "labels": each.labels, "ignore": each.ignore}
        for each in batch.targets
    ]
    content = {"images": batch.images.tensor, "sizes": [list(s) for s in batch.images.sizes], "targets": targets}
    try:
        io.save(path, content)
    except InputError as error:  # what went wrong in the training matters more than a full disk
        return str(error)
    return f"they are in {path} as the model saw them"
