"""How a batch travels from a loader worker to the main process: without `/dev/shm`, which is tiny in most containers.

Torch puts tensors that change hands into files of `/dev/shm`. If one does not fit, the queue of the worker prints an
error and drops the batch, and the main process waits for ever. Here the worker itself packs its batch: the images are
written to an anonymous file, which only the memory of the machine or container limits, and whose descriptor is sent.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass, replace
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.batch import Batch


@dataclass
class Parcel:
    """A packed batch.

    Attributes:
        batch: without its images.
        shape: that of the images, (N, 3, H, W) float32.
        file: the anonymous file of the images, to be opened once; None if there is none.
        content: the images themselves if there is no file; a tensor travels in torch's way.
    """

    batch: Batch
    shape: tuple[int, ...]
    file: Any = None
    content: np.ndarray | Tensor | None = None

    def unpack(self) -> Batch:
        """The batch; its images use the memory of the file, which is freed together with them."""
        if self.file is None:
            images = torch.as_tensor(self.content)
        else:
            descriptor = self.file.detach()
            try:
                images = torch.frombuffer(mmap.mmap(descriptor, 0), dtype=torch.float32).view(self.shape)
            finally:
                os.close(descriptor)
        return replace(self.batch, images=replace(self.batch.images, tensor=images))

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader."""
        return self.unpack().pin_memory()


def pack(batch: Batch) -> Parcel:
    """The contents of `batch`, its images in an anonymous file; by value if the container allows none or lacks memory.

    Only Linux has such files, and only there `/dev/shm` is small.
    """
    images = batch.images.tensor
    rest = replace(batch, images=replace(batch.images, tensor=torch.zeros(0)))
    if not hasattr(os, "memfd_create"):
        return Parcel(rest, images.shape, content=images)
    if images.numel():
        with contextlib.suppress(OSError):
            return Parcel(rest, images.shape, file=_written(images.numpy()))
    return Parcel(rest, images.shape, content=images.numpy())


def _written(images: np.ndarray) -> Any:
    """A handle of an anonymous file of `images` that another process can receive."""
    descriptor = os.memfd_create("batch")
    try:
        # Written rather than mapped: a lack of memory is then an error and not a SIGBUS.
        with open(descriptor, "wb", buffering=0, closefd=False) as file:
            rest = memoryview(np.ascontiguousarray(images)).cast("B")
            while rest:
                rest = rest[file.write(rest) :]
        return DupFd(descriptor)
    finally:
        os.close(descriptor)
