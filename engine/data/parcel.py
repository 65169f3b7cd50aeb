"""How a batch travels from a loader worker to the main process: without `/dev/shm`, which is tiny in most containers.

Torch puts tensors that change hands into files of `/dev/shm`. If one does not fit, the queue of the worker prints an
error and drops the batch, and the main process waits for ever. Here the worker collates its images in a block of
memory, an anonymous file that only the memory of the machine or container limits, and sends the descriptor. Once the
main process has no use for the images any more it returns the block, since new memory costs more than the decoding of
a small image.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.data.batch import Batch
from engine.errors import InputError

_TOO_MANY_FILES = "too many open files to receive images from loader workers: raise ulimit -n"
_SENT, _RETURNED = struct.Struct("QQ?"), struct.Struct("Q")
"""A message to the main process: its number, the block, whether a descriptor comes with it; and one to the worker."""
_ROOM = 2
"""How many times larger than its first batch a block may grow: memory is only taken for what was used."""


class _Block:
    """Memory of a worker that the main process can map too.

    Raises:
        OSError: there is no memory, or such files are forbidden.
    """

    def __init__(self, number: int, num_bytes: int) -> None:
        self.number, self.capacity = number, _ROOM * num_bytes
        self.is_lent = self.is_known = False
        self._num_allocated = 0
        self.descriptor = os.memfd_create("batch")
        try:
            os.ftruncate(self.descriptor, self.capacity)
            self._memory = mmap.mmap(self.descriptor, self.capacity)
            self.allocate(num_bytes)
        except (OSError, ValueError):
            os.close(self.descriptor)
            raise
        self.address = torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr()

    def allocate(self, num_bytes: int) -> None:
        # Asked for rather than touched: a lack of memory is then an error and not a SIGBUS.
        if num_bytes > self._num_allocated:
            os.posix_fallocate(self.descriptor, self._num_allocated, num_bytes - self._num_allocated)
            self._num_allocated = num_bytes

    def tensor(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        count = int(np.prod(shape))
        return torch.frombuffer(self._memory, dtype=dtype, count=count).view(tuple(shape))


class Channel:
    """Carries blocks of memory from one worker to the main process, which creates it and then forks the worker.

    A block that was sent can be received even if the worker hangs or has ended since.
    """

    _numbers = itertools.count()

    def __init__(self) -> None:
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending.setblocking(False)
        self._receiving.setblocking(False)
        self.name = next(self._numbers)
        self._num_sent = 0
        self._blocks: dict[int, _Block] = {}  # of the worker
        self._block_numbers = itertools.count()
        self._maps: dict[int, mmap.mmap] = {}  # of the main process
        _channels[self.name] = self

    def close(self) -> None:
        """Nothing is received any more."""
        self._receiving.close()
        self._sending.close()
        for block in self._blocks.values():
            os.close(block.descriptor)
        self._blocks.clear()
        self._maps.clear()

    # -- in the worker ----------------------------------------------------------------------------------------------

    def open_in_worker(self) -> None:
        """Blocks of this process are sent through this channel from now on."""
        global _own_channel
        _own_channel = self

    def lend(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor in a block that nobody uses.

        Raises:
            OSError: see `_Block`.
        """
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        self._take_back()
        free = sorted((block for block in self._blocks.values() if not block.is_lent), key=lambda each: each.capacity)
        block = next((each for each in free if each.capacity >= num_bytes), None)
        if block is None:
            if free:  # too small
                os.close(self._blocks.pop(free[0].number).descriptor)
            block = _Block(free[0].number if free else next(self._block_numbers), num_bytes)
            self._blocks[block.number] = block
        block.allocate(num_bytes)
        block.is_lent = True
        return block.tensor(shape, dtype)

    def send(self, images: Tensor) -> int:
        """Send a tensor that was lent; returns the number of the message.

        Raises:
            OSError: too many are on their way; the tensor then must not be used any more.
        """
        block = next(each for each in self._blocks.values() if each.address == images.data_ptr())
        self._num_sent += 1
        message = _SENT.pack(self._num_sent, block.number, not block.is_known)
        try:
            if block.is_known:
                self._sending.send(message)
            else:
                socket.send_fds(self._sending, [message], [block.descriptor])
        except OSError:
            block.is_lent = False
            raise
        block.is_known = True
        return self._num_sent

    def is_lent(self, images: Tensor) -> bool:
        return any(block.address == images.data_ptr() for block in self._blocks.values())

    def _take_back(self) -> None:
        with contextlib.suppress(OSError):  # there are no further messages
            while message := self._sending.recv(_RETURNED.size):
                self._blocks[_RETURNED.unpack(message)[0]].is_lent = False

    # -- in the main process ----------------------------------------------------------------------------------------

    def receive(self, number: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The tensor of that message; those before it, which nobody wants any more, are returned.

        It uses the memory of the block, which is returned together with it.

        Raises:
            InputError: this process may not open more files.
        """
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._receiving, _SENT.size, 1)
            received, block, has_descriptor = _SENT.unpack(message)
            if has_descriptor:
                self._map(block, descriptors)
            if received == number:
                break
            self._return(os.getpid(), block)
        array = np.frombuffer(self._maps[block], dtype=np.uint8, count=int(np.prod(shape)) * dtype.itemsize)
        weakref.finalize(array, self._return, os.getpid(), block).atexit = False
        return torch.from_numpy(array).view(dtype).view(tuple(shape))

    def _map(self, block: int, descriptors: Sequence[int]) -> None:
        if not descriptors:
            raise InputError(_TOO_MANY_FILES)
        try:
            self._maps[block] = mmap.mmap(descriptors[0], 0)
        except OSError as error:  # the map has a descriptor of its own
            raise InputError(_TOO_MANY_FILES) from error
        finally:
            os.close(descriptors[0])

    def _return(self, owner: int, block: int) -> None:
        if os.getpid() == owner:  # a forked process has a copy of the tensor
            with contextlib.suppress(OSError):  # the worker has ended
                self._receiving.send(_RETURNED.pack(block))


_channels: weakref.WeakValueDictionary[int, Channel] = weakref.WeakValueDictionary()
_own_channel: Channel | None = None


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; in a worker one that `pack` need not copy, if memory of this kind is to be had."""
    if _own_channel is not None and np.prod(shape) > 0:
        with contextlib.suppress(OSError):
            return _own_channel.lend(shape, dtype)
    return torch.empty(tuple(shape), dtype=dtype)


@dataclass
class Parcel:
    """A packed batch.

    Attributes:
        batch: without its images.
        shape: that of the images, (N, C, H, W).
        dtype: that of the images: float32, or uint8 where they are normalised later (test-time augmentation).
        message: channel and number of the message with the images, which can be opened once; None if there is none.
        content: the images themselves if there is none; a tensor travels in torch's way.
    """

    batch: Batch
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    message: tuple[int, int] | None = None
    content: np.ndarray | Tensor | None = None

    def unpack(self) -> Batch:
        """The batch; its images use memory of the worker, which gets it back when they are freed."""
        if self.message is None:
            images = torch.as_tensor(self.content)
        else:
            channel, number = self.message
            images = _channels[channel].receive(number, self.shape, self.dtype)
        return replace(self.batch, images=replace(self.batch.images, tensor=images))

    def pin_memory(self) -> Batch | InputError:
        """Called by a thread of torch's DataLoader, which would add a traceback to an exception."""
        try:
            return self.unpack().pin_memory()
        except InputError as error:
            return error


def pack(batch: Batch) -> Parcel:
    """The contents of `batch`, its images in a block; by value if the container allows none or lacks memory.

    Only Linux has such memory, and only there `/dev/shm` is small: without a channel the images travel in torch's way.
    """
    images = batch.images.tensor
    rest = replace(batch, images=replace(batch.images, tensor=torch.zeros(0)))
    if _own_channel is None:
        return Parcel(rest, images.shape, images.dtype, content=images)
    if images.numel():
        with contextlib.suppress(OSError):
            if not _own_channel.is_lent(images):
                images = _own_channel.lend(images.shape, images.dtype).copy_(images)
            return Parcel(rest, images.shape, images.dtype, (_own_channel.name, _own_channel.send(images)))
    # A copy, since the memory may be in a block, and used again before this is sent.
    return Parcel(rest, images.shape, images.dtype, content=images.numpy().copy())
