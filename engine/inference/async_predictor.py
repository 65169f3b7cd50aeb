"""Single images of many callers at once, detected together: coroutines, threads, the requests of a server."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Literal

from engine.inference.stages import run_each, stages_of


class QueueFullError(Exception):
    """So many images wait already that another one is refused; try again later."""


class PredictorClosedError(Exception):
    """No image is taken any more."""


class _Request(Future):
    """The detections to come in one image of one caller, who may cancel it, which takes the image out of the queue.

    It is the future itself and not a holder of one: the two would refer to each other through the future's callback,
    and keep every image until the next full garbage collection.

    Attributes:
        image, color: as given; the image is dropped once it is prepared.
        network_input, size, ready_at: of the prepared image.
    """

    def __init__(self, image: Any, color: str) -> None:
        super().__init__()
        self.image, self.color = image, color
        self.network_input: Any = None
        self.size = (0, 0)
        self.ready_at = 0.0


class AsyncPredictor:
    """`await predictor.detect(image)` from any number of coroutines: images that wait go through the network together.

    Threads read and prepare the images, and run the network; no event loop waits for them. It belongs to no event
    loop: several may use it, and threads by `submit`. A caller that is cancelled (or timed out) takes its image back if
    the network has not begun with it. An image that cannot be read, or on which the network fails, is an error of its
    own caller only. Use it in a `with` or `async with` block, or `close` it.

    Args:
        predictor: `Predictor`, or whatever else takes lists of images; see `inference.stages`. Not closed with this.
        max_batch: images that go through the network together.
        max_delay: seconds that a prepared image waits for others. While the network is busy, images gather anyway.
        max_queue: images that may wait before the network, prepared or not.
        when_full: what becomes of an image beyond `max_queue`: "error" raises `QueueFullError` at once, "wait" lets the
            caller wait in line.
        workers: threads that read and prepare images.

    Example:
        async with AsyncPredictor(Predictor("model.yaml", "model.pth")) as predictor:
            found = await asyncio.gather(*(predictor.detect(image) for image in images))
    """

    def __init__(
        self,
        predictor: Any,
        max_batch: int = 8,
        max_delay: float = 0.005,
        max_queue: int = 64,
        when_full: Literal["error", "wait"] = "error",
        workers: int = 1,
    ) -> None:
        if min(max_batch, max_queue, workers) < 1 or max_delay < 0:
            raise ValueError("max_batch, max_queue and workers must be at least 1, max_delay at least 0")
        if when_full not in ("error", "wait"):
            raise ValueError(f'when_full must be "error" or "wait", not {when_full!r}')
        self.predictor, self._stages = predictor, stages_of(predictor)
        self.max_batch, self.max_delay, self.max_queue, self.when_full = max_batch, max_delay, max_queue, when_full
        self._changed = threading.Condition()
        self._unprepared: deque[_Request] = deque()
        self._prepared: deque[_Request] = deque()
        self._queued: set[_Request] = set()  # with those that are being prepared
        self._open: set[_Request] = set()  # with those in the network
        self._is_closed = False
        num_runs = getattr(predictor, "num_copies", 1)
        self._most_prepared = max_batch * (num_runs + 1)  # prepared images are larger than encoded ones
        loops = [self._prepare_images] * workers + [self._run_batches] * num_runs
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close, 0.0)  # a thread within the network would crash the end of the process

    async def detect(self, image: Any, color: str = "bgr") -> Any:
        """Detections in one image of any kind that the predictor takes.

        Raises:
            InputError, ValueError: it is no image, see the predictor.
            QueueFullError: too many images wait, and `when_full` is "error".
            PredictorClosedError: after `close`, or `close` gave up on it.
        """
        return await asyncio.wrap_future(self._accepted(image, color))  # a coroutine waits for its result in any case

    def submit(self, image: Any, color: str = "bgr") -> Future:
        """As `detect`, for threads: the future of the detections. With `when_full="wait"` it blocks while it is full.

        Raises:
            QueueFullError, PredictorClosedError: see `detect`.
        """
        with self._changed:
            if self.when_full == "wait":
                self._changed.wait_for(lambda: self._is_closed or not self._is_full())
            return self._accepted(image, color)

    @property
    def num_waiting(self) -> int:
        """Images that wait before the network, prepared or not."""
        return len(self._queued)

    def close(self, timeout: float | None = None) -> None:
        """Take no further images, answer those that wait, and end the threads.

        After `timeout` seconds, callers whose images the network has not begun with get a `PredictorClosedError`.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, timeout)
            left = list(self._queued)
            for request in left:
                self._remove(request)
            self._changed.notify_all()
        for request in left:
            _fail(request, PredictorClosedError("the predictor was closed before the image was looked at"))
        for thread in self._threads:
            thread.join()
        atexit.unregister(self.close)

    async def aclose(self, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        await asyncio.to_thread(self.close, timeout)

    def __enter__(self) -> AsyncPredictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncPredictor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ---------------------------------------------------------------- the queue

    def _is_full(self) -> bool:
        return len(self._queued) >= self.max_queue

    def _accepted(self, image: Any, color: str) -> _Request:
        with self._changed:
            if self._is_closed:
                raise PredictorClosedError("the predictor is closed")
            if self.when_full == "error" and self._is_full():
                raise QueueFullError(f"{self.max_queue} images wait already; try again later")
            request = _Request(image, color)
            self._unprepared.append(request)
            self._queued.add(request)
            self._open.add(request)
            request.add_done_callback(self._forget)  # also when it is cancelled
            self._changed.notify_all()
        return request

    def _forget(self, request: Any) -> None:
        request.image = request.network_input = None
        with self._changed:
            self._remove(request)
            self._open.discard(request)
            self._changed.notify_all()

    def _remove(self, request: _Request) -> None:
        if request in self._queued:
            self._queued.remove(request)
            for line in (self._unprepared, self._prepared):
                if request in line:
                    line.remove(request)

    # ---------------------------------------------------------------- what the threads do

    def _prepare_images(self) -> None:
        while (request := self._next_unprepared()) is not None:
            try:
                pixels = self._stages.pixels(request.image, request.color)
                request.network_input, request.size = self._stages.network_input(pixels), pixels.shape[:2]
            except BaseException as error:
                with self._changed:
                    is_asked_for = request in self._queued
                    self._remove(request)
                if is_asked_for:
                    _fail(request, error)
                continue
            request.image = None
            with self._changed:
                if request in self._queued:  # not cancelled meanwhile
                    request.ready_at = time.monotonic()
                    self._prepared.append(request)
                self._changed.notify_all()

    def _next_unprepared(self) -> _Request | None:
        with self._changed:
            while not self._unprepared or len(self._prepared) >= self._most_prepared:
                if self._is_closed and not self._unprepared:
                    return None
                self._changed.wait()
            return self._unprepared.popleft()

    def _run_batches(self) -> None:
        while (batch := self._next_batch()) is not None:
            batch = [each for each in batch if each.set_running_or_notify_cancel()]
            try:
                found = run_each(self._stages, [each.network_input for each in batch]) if batch else []
                for request, each in zip(batch, found, strict=True):
                    self._answer(request, each)
            except BaseException as error:  # nobody may wait for ever
                for request in batch:
                    if not request.done():
                        request.set_exception(error)

    def _next_batch(self) -> list[_Request] | None:
        with self._changed:
            while (wait := self._seconds_to_wait()) != 0:
                if self._is_closed and not self._queued:
                    return None
                self._changed.wait(wait)
            batch = [self._prepared.popleft() for _ in range(min(self.max_batch, len(self._prepared)))]
            self._queued.difference_update(batch)
            self._changed.notify_all()
            return batch

    def _seconds_to_wait(self) -> float | None:
        """Until a batch may start; None: until something changes."""
        if not self._prepared:
            return None
        if len(self._prepared) >= self.max_batch:
            return 0
        return max(self._prepared[0].ready_at + self.max_delay - time.monotonic(), 0)

    def _answer(self, request: _Request, found: Any) -> None:
        if isinstance(found, Exception):
            request.set_exception(found)
            return
        try:
            request.set_result(self._stages.finish(found, request.size))
        except Exception as error:
            request.set_exception(error)


def _fail(request: _Request, error: BaseException) -> None:
    if request.set_running_or_notify_cancel():
        request.set_exception(error)
