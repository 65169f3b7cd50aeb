"""Copies of a model on several devices, between which batches are spread."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn

from engine.structures import Detections, ImageBatch


class Replicas(nn.Module):
    """Takes the place of a model that detects: each call is that of an idle copy, on its device.

    Calls of several threads run at once, as many as there are copies; others wait. One call uses one copy.

    Args:
        model: in evaluation mode; it is copied, and not kept.
        devices: one for each copy; a device may be named several times.
    """

    def __init__(self, model: nn.Module, devices: Sequence[torch.device]) -> None:
        super().__init__()
        self.devices = list(devices)
        self.copies = nn.ModuleList(copy.deepcopy(model).to(device) for device in self.devices)
        self.detects_one_by_one = getattr(model, "detects_one_by_one", False)
        self._free_all()
        self.train(model.training)

    @property
    def num_copies(self) -> int:
        return len(self.copies)

    def detect(self, images: ImageBatch | Sequence[Tensor]) -> list[Detections]:
        """Detections of each image, on the device of the copy that found them; `images` may lie on any device."""
        number = self._idle.get()
        try:
            device = self.devices[number]
            images = images.to(device) if isinstance(images, ImageBatch) else [each.to(device) for each in images]
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # for kernels of our own
                return self.copies[number].detect(images)
        finally:
            self._idle.put(number)

    forward = detect  # what a model in evaluation mode does

    def _free_all(self) -> None:
        self._idle: SimpleQueue[int] = SimpleQueue()  # indices of copies
        for number in range(len(self.copies)):
            self._idle.put(number)

    def __getstate__(self) -> dict[str, Any]:  # a queue cannot be pickled
        return {name: value for name, value in self.__dict__.items() if name != "_idle"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._free_all()
