"""The model of a worker with its queue: it starts, answers, takes a new file of the model, and stops."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.inference.async_predictor import AsyncPredictor, PredictorClosedError
from engine.inference.stages import stages_of
from engine.log import get_logger
from engine.serve.bodies import Upload
from engine.serve.images import check_image
from engine.serve.limits import Limits, Refusal, busy
from engine.serve.metrics import Metrics
from engine.serve.model import Load, ServedModel, check_model, file_identity

WATCH_SECONDS = 1.0
_POLL_SECONDS = 0.05

logger = get_logger(__name__)


class _CountedStages:
    """The stages of a predictor, which put the sizes of batches into the metrics.

    Args:
        runs: thread -> when it gave the network its present batch; kept up to date.
    """

    def __init__(self, predictor: Any, metrics: Metrics, runs: dict[int, float]) -> None:
        self._stages, self._metrics, self._runs = stages_of(predictor), metrics, runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stages, name)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        self._metrics.batches.observe(len(inputs))
        thread = threading.get_ident()
        self._runs[thread] = time.monotonic()
        try:
            return self._stages.run(inputs)
        finally:
            del self._runs[thread]


@dataclass(eq=False)
class _Loaded:
    """A model, the queue before it, and the number of requests that it answers now."""

    model: ServedModel
    queue: AsyncPredictor
    num_requests: int = 0


class Service:
    """Detections for requests. All methods belong to one event loop.

    Args:
        load: reads the model.
        limits: on what is accepted.
        metrics: to count in.
        watched: files of the model; when they have been replaced, it is loaded again.

    Attributes:
        state: "starting", "ready" or "stopping".
        num_waiting: images accepted and not yet answered.
    """

    def __init__(self, load: Load, limits: Limits, metrics: Metrics, watched: Sequence[Path] = ()) -> None:
        self.limits, self.metrics = limits, metrics
        self.state = "starting"
        self.num_waiting = 0
        self._load, self._watched = load, tuple(watched)
        self._loaded: _Loaded | None = None
        self._runs: dict[int, float] = {}

    @property
    def seconds_in_network(self) -> float:
        """How long the network has been busy with the same images; 0 if it is not."""
        now = time.monotonic()
        return max((now - began for began in tuple(self._runs.values())), default=0.0)

    @property
    def model(self) -> ServedModel:
        """The model that answers now.

        Raises:
            Refusal: 503, it is not loaded yet.
        """
        if self._loaded is None:
            raise busy(503, "the model is being loaded; try again")
        return self._loaded.model

    async def start(self) -> None:
        """Load the model.

        Raises:
            InputError: its file cannot be used.
        """
        self._loaded = await self._load_checked()

    def open(self) -> None:
        """Answer requests from now on; after `start`."""
        if self.state == "starting":
            self.state = "ready"

    async def _load_checked(self) -> _Loaded:
        model = await asyncio.to_thread(self._load)
        await asyncio.to_thread(check_model, model)
        stages, limits = _CountedStages(model.predictor, self.metrics, self._runs), self.limits
        return _Loaded(model, AsyncPredictor(stages, limits.max_batch, limits.max_delay, limits.max_queue))

    async def watch(self, seconds: float = WATCH_SECONDS) -> None:
        """Load the model again whenever its files are others than before, for ever.

        A new file is tried once it has stayed the same for `seconds`. If it cannot be used, the model stays as it is.
        """
        identities = self._identities()
        while self._watched:
            seen = self._identities()
            await asyncio.sleep(seconds)
            if seen != identities and seen == self._identities() and all(seen):
                identities = seen
                await self.reload()

    def _identities(self) -> list[tuple[int, ...]]:
        return [file_identity(path) for path in self._watched]

    async def reload(self) -> None:
        """Load the model from its file and let it answer instead of the present one, which ends what it has begun."""
        before = self._loaded
        try:
            loaded = await self._load_checked()
        except Exception as error:  # whatever is in the file, the model that works goes on
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.metrics.reloads.labels("failed").inc()
            logger.warning("the new file of the model cannot be used, the one before stays: %s", reason)
            return
        self._loaded = loaded
        self.metrics.reloads.labels("loaded").inc()
        logger.info("answering with the new file of the model, %s %s", loaded.model.name, loaded.model.digest)
        if before is None:
            return
        while before.num_requests:
            await asyncio.sleep(_POLL_SECONDS)
        closing = threading.Thread(target=before.queue.close, daemon=True)  # asyncio's own would keep it longer
        del before
        closing.start()
        while closing.is_alive():
            await asyncio.sleep(_POLL_SECONDS)
        gc.collect()  # the parts of a model refer to each other; without this, several old ones stay in memory

    def stop(self) -> None:
        """Accept nothing from now on."""
        self.state = "stopping"

    async def close(self) -> None:
        """End the threads. What is still open gets an error."""
        if self._loaded is not None:
            await self._loaded.queue.aclose(0.0)

    def check_open(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            Refusal: 429 the queue is full, 503 starting or stopping.
        """
        if self.state != "ready":
            words = "the model is being loaded" if self.state == "starting" else "the server stops"
            raise busy(503, f"{words}; try again")
        self._check_room(1)

    def _check_room(self, count: int) -> None:
        if self.num_waiting + count > self.limits.max_queue:
            raise busy(429, f"{self.num_waiting} images wait already; try again")

    async def detect(
        self, uploads: Sequence[Upload], threshold: float | None = None, max_detections: int | None = None
    ) -> dict[str, Any]:
        """The answer for the images of a request, as JSON values. Of several, each may be refused by itself.

        Raises:
            Refusal: 429 there is no room for all of them, 503 they took too long; or the only image was refused.
        """
        began = time.perf_counter()
        self._check_room(len(uploads))
        loaded = self._loaded
        assert loaded is not None  # `check_open`
        with self._accepted(loaded, len(uploads)):
            try:
                found = await asyncio.wait_for(
                    asyncio.gather(*(self._found(loaded, each) for each in uploads)), self.limits.timeout
                )
            except asyncio.TimeoutError:
                raise busy(503, f"not answered within {self.limits.timeout:g} seconds; try again") from None
        if len(found) == 1 and isinstance(found[0], Refusal):
            raise found.pop()  # not kept here: its traceback keeps this frame, and so the image
        images = []
        for index, (upload, each) in enumerate(zip(uploads, found, strict=True)):
            entry: dict[str, Any] = {"index": index, "name": upload.name}
            if isinstance(each, Refusal):
                entry["error"] = each.as_json()
            else:
                entry |= {"height": each.size[0], "width": each.size[1]}
                entry["detections"] = loaded.model.detections(each, threshold, max_detections)
            images.append(entry)
        return {
            "model": {"name": loaded.model.name, "hash": loaded.model.digest},
            "milliseconds": round(1000 * (time.perf_counter() - began), 3),
            "images": images,
        }

    @contextmanager
    def _accepted(self, loaded: _Loaded, count: int) -> Iterator[None]:
        """Counts a request of so many images while it is answered."""
        loaded.num_requests += 1
        self.num_waiting += count
        self.metrics.queue.inc(count)
        try:
            yield
        finally:
            loaded.num_requests -= 1
            self.num_waiting -= count
            self.metrics.queue.dec(count)

    async def _found(self, loaded: _Loaded, upload: Upload) -> Any:
        """Detections, or a refusal in their place."""
        try:
            await asyncio.to_thread(check_image, upload.data, self.limits)
            found = await loaded.queue.detect(upload.data)
        except Refusal as refusal:
            found = refusal.with_traceback(None)  # which would keep this frame, the frame the image, for long
        except PredictorClosedError:
            found = busy(503, "the server stops; try again")
        except (InputError, ValueError) as error:
            found = Refusal(422, str(error))
        except Exception:
            logger.exception("an image failed")
            found = Refusal(500, "the model failed on this image; the log of the server says why")
        self.metrics.images.labels("refused" if isinstance(found, Refusal) else "detected").inc()
        return found
