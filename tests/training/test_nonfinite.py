from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.data.batch import Batch
from engine.structures import ImageBatch, Targets
from engine.training.nonfinite import NonFinite, save_batches


def _batch() -> Batch:
    """Two images of different sizes, with one box and with none."""
    some = Targets(torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([2]), torch.tensor([True]), 17, (4, 6))
    none = Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), "b", (8, 5))
    return Batch(ImageBatch.from_list([torch.full((3, 4, 6), 0.5), torch.full((3, 8, 5), 2.0)]), [some, none])


def test_message_has_every_loss_and_every_image() -> None:
    losses = {"loss_cls": torch.tensor(1.5, requires_grad=True), "loss_reg": torch.tensor(float("nan"))}
    error = NonFinite("the loss is", losses, [_batch()])
    what, todo = str(error).split(": ")
    assert what == "the loss is not finite (loss_cls 1.5, loss_reg nan) at images 17, 'b'"
    assert todo == "lower SOLVER.BASE_LR or check these images"


def test_the_batch_loads_without_running_code(tmp_path: Path) -> None:
    path = tmp_path / "batch.pth"
    assert save_batches(path, [_batch(), _batch()]) == f"they are in {path} as the model saw them"
    content, _ = torch.load(path, weights_only=True)["batches"]
    assert content["images"].shape == (2, 3, 8, 6) and content["sizes"] == [[4, 6], [8, 5]]
    assert (content["images"][0, :, :4, :6] == 0.5).all() and (content["images"][0, :, 4:] == 0).all()
    first, second = content["targets"]
    assert first["image_id"] == 17 and first["boxes"].tolist() == [[1, 2, 3, 4]]
    assert first["labels"].tolist() == [2] and first["ignore"].tolist() == [True]
    assert second["image_id"] == "b" and second["boxes"].shape == (0, 4)


def test_a_batch_that_cannot_be_saved_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    said = save_batches(tmp_path / "batch.pth", [_batch()])
    assert "batch.pth: cannot be written: No space left on device" in said and not list(tmp_path.iterdir())
