"""How a batch travels from a loader worker to the main process: without `/dev/shm`, which is tiny in most containers.

Torch puts tensors that change hands into files of `/dev/shm`. If one does not fit, the queue of the worker prints an
error and drops the batch, and the main process waits for ever. Here the worker itself packs its batch: the images are
written to an anonymous file, which only the memory of the machine or container limits, and its descriptor is sent.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
import weakref
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.data.batch import Batch
from engine.errors import InputError

_TOO_MANY_FILES = "too many open files to receive images from loader workers: raise ulimit -n"


class Channel:
    """Carries open files from one worker to the main process, which creates it and then forks the worker.

    A file that was sent can be received even if the worker hangs or has ended since.
    """

    _numbers = itertools.count()

    def __init__(self) -> None:
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending.setblocking(False)
        self._receiving.setblocking(False)
        self.name = next(self._numbers)
        self._num_sent = 0
        _channels[self.name] = self

    def close(self) -> None:
        """Nothing is received any more."""
        self._receiving.close()
        self._sending.close()

    def open_in_worker(self) -> None:
        """Files of this process are sent through this channel from now on."""
        global _own_channel
        _own_channel = self

    def send(self, descriptor: int) -> int:
        """Send a copy of the descriptor; returns its number.

        Raises:
            OSError: too many files are on their way.
        """
        self._num_sent += 1
        socket.send_fds(self._sending, [self._num_sent.to_bytes(8, "big")], [descriptor])
        return self._num_sent

    def receive(self, number: int) -> int:
        """The descriptor of that number; those before it, which nobody wants any more, are closed.

        Raises:
            InputError: this process may not open more files.
        """
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._receiving, 8, 1)
            if int.from_bytes(message, "big") != number:
                for descriptor in descriptors:
                    os.close(descriptor)
            elif descriptors:
                return descriptors[0]
            else:
                raise InputError(_TOO_MANY_FILES)


_channels: weakref.WeakValueDictionary[int, Channel] = weakref.WeakValueDictionary()
_own_channel: Channel | None = None


@dataclass
class Parcel:
    """A packed batch.

    Attributes:
        batch: without its images.
        shape: that of the images, (N, C, H, W).
        dtype: that of the images: float32, or uint8 where they are normalised later (test-time augmentation).
        file: channel and number of the file of the images, which can be opened once; None if there is none.
        content: the images themselves if there is no file; a tensor travels in torch's way.
    """

    batch: Batch
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    file: tuple[int, int] | None = None
    content: np.ndarray | Tensor | None = None

    def unpack(self) -> Batch:
        """The batch; its images use the memory of the file, which is freed together with them."""
        if self.file is None:
            images = torch.as_tensor(self.content)
        else:
            channel, number = self.file
            descriptor = _channels[channel].receive(number)
            try:
                images = torch.frombuffer(mmap.mmap(descriptor, 0), dtype=self.dtype).view(self.shape)
            except OSError as error:  # the map has a descriptor of its own
                raise InputError(_TOO_MANY_FILES) from error
            finally:
                os.close(descriptor)
        return replace(self.batch, images=replace(self.batch.images, tensor=images))

    def pin_memory(self) -> Batch | InputError:
        """Called by a thread of torch's DataLoader, which would add a traceback to an exception."""
        try:
            return self.unpack().pin_memory()
        except InputError as error:
            return error


def pack(batch: Batch) -> Parcel:
    """The contents of `batch`, its images in an anonymous file; by value if the container allows none or lacks memory.

    Only Linux has such files, and only there `/dev/shm` is small: without a channel the images travel in torch's way.
    """
    images = batch.images.tensor
    rest = replace(batch, images=replace(batch.images, tensor=torch.zeros(0)))
    if _own_channel is None:
        return Parcel(rest, images.shape, images.dtype, content=images)
    if images.numel():
        with contextlib.suppress(OSError):
            file = _own_channel.name, _sent(images.numpy(), _own_channel)
            return Parcel(rest, images.shape, images.dtype, file)
    return Parcel(rest, images.shape, images.dtype, content=images.numpy())


def _sent(images: np.ndarray, channel: Channel) -> int:
    """The number in `channel` of an anonymous file of `images`."""
    descriptor = os.memfd_create("batch")
    try:
        # Written rather than mapped: a lack of memory is then an error and not a SIGBUS.
        with open(descriptor, "wb", buffering=0, closefd=False) as file:
            rest = memoryview(np.ascontiguousarray(images)).cast("B")
            while rest:
                rest = rest[file.write(rest) :]
        return channel.send(descriptor)
    finally:
        os.close(descriptor)
