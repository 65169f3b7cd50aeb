from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from engine.inference.async_predictor import AsyncPredictor, PredictorClosedError, QueueFullError


class Doubling:
    """A predictor of numbers instead of images: "finds" twice the number, one batch at a time, when it is let.

    Images are non-negative: -1 cannot be read, and a batch with 13 fails in the network.
    """

    batch_size = 1
    class_names = ("a",)

    def __init__(self, is_open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.gate = threading.Semaphore(0), threading.Event()
        if is_open:
            self.gate.set()

    def pixels(self, image: int, color: str = "bgr") -> np.ndarray:
        if image < 0:
            raise ValueError(f"{image} cannot be read")
        return np.full((2, 3), image)

    def network_input(self, pixels: np.ndarray) -> int:
        return int(pixels[0, 0])

    def run(self, inputs: Sequence[int]) -> list[int]:
        self.batches.append(list(inputs))
        self.entered.release()
        assert self.gate.wait(20)
        if 13 in inputs:
            raise RuntimeError("13")
        return [2 * each for each in inputs]

    def finish(self, detections: int, size: tuple[int, int]) -> int:
        assert size == (2, 3)
        return detections


def test_concurrent_callers_share_batches_and_get_their_own_answer() -> None:
    doubling = Doubling()

    async def main() -> list[int]:
        async with AsyncPredictor(doubling, max_batch=4, max_delay=60.0) as predictor:
            return await asyncio.gather(*(predictor.detect(k) for k in range(12)))

    assert asyncio.run(main()) == [2 * k for k in range(12)]
    assert [len(batch) for batch in doubling.batches] == [4, 4, 4]


def test_an_incomplete_batch_waits_no_longer_than_the_delay() -> None:
    doubling = Doubling()
    with AsyncPredictor(doubling, max_batch=4, max_delay=0.05) as predictor:
        start = time.monotonic()
        assert predictor.submit(3).result(20) == 6
        assert time.monotonic() - start >= 0.05
    assert doubling.batches == [[3]]


def test_a_bad_image_is_an_error_of_its_own_caller() -> None:
    doubling = Doubling()

    async def main() -> list[Any]:
        async with AsyncPredictor(doubling, max_batch=4, max_delay=60.0) as predictor:
            calls = [predictor.detect(k) for k in (1, -1, 13, 2, 3)]
            return await asyncio.gather(*calls, return_exceptions=True)

    first, unread, failed, *others = asyncio.run(main())
    assert [first, *others] == [2, 4, 6]
    assert isinstance(unread, ValueError) and isinstance(failed, RuntimeError)
    assert doubling.batches == [[1, 13, 2, 3], [1], [13], [2], [3]]


def test_a_full_queue_refuses_at_once() -> None:
    doubling = Doubling(is_open=False)
    with AsyncPredictor(doubling, max_batch=1, max_queue=2) as predictor:
        running = predictor.submit(0)
        assert doubling.entered.acquire(timeout=20)  # it does not wait any more
        waiting = [predictor.submit(k) for k in (1, 2)]
        assert predictor.num_waiting == 2
        with pytest.raises(QueueFullError, match="2 images wait"):
            predictor.submit(3)
        with pytest.raises(QueueFullError):
            asyncio.run(predictor.detect(3))
        assert waiting[1].cancel()  # makes room
        waiting[1] = predictor.submit(4)
        doubling.gate.set()
        assert [each.result(20) for each in (running, *waiting)] == [0, 2, 8]
    assert doubling.batches == [[0], [1], [4]]


def test_a_full_queue_lets_callers_wait() -> None:
    doubling = Doubling(is_open=False)

    async def main(predictor: AsyncPredictor) -> list[int]:
        tasks = [asyncio.create_task(predictor.detect(k)) for k in range(9)]
        await asyncio.sleep(0.05)  # all are in line, and the event loop is free
        doubling.gate.set()
        return await asyncio.gather(*tasks)

    with AsyncPredictor(doubling, max_batch=2, max_queue=1, when_full="wait") as predictor:
        assert asyncio.run(main(predictor)) == [2 * k for k in range(9)]


def test_a_full_queue_lets_threads_wait() -> None:
    doubling = Doubling(is_open=False)
    with AsyncPredictor(doubling, max_batch=1, max_queue=1, when_full="wait") as predictor:
        futures = [predictor.submit(0)]
        assert doubling.entered.acquire(timeout=20)
        futures.append(predictor.submit(1))
        thread = threading.Thread(target=lambda: futures.append(predictor.submit(7)))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and len(futures) == 2
        doubling.gate.set()
        thread.join(20)
        assert [each.result(20) for each in futures] == [0, 2, 14]


def test_a_cancelled_caller_takes_its_image_back() -> None:
    doubling = Doubling(is_open=False)

    async def main(predictor: AsyncPredictor) -> list[Any]:
        tasks = [asyncio.create_task(predictor.detect(k)) for k in range(7)]
        while not doubling.batches:
            await asyncio.sleep(0.001)
        for k in (1, 4):  # 1 is in the network, 4 waits
            tasks[k].cancel()
        await asyncio.sleep(0.01)
        assert predictor.num_waiting == 4
        doubling.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with AsyncPredictor(doubling, max_batch=2, max_delay=60.0) as predictor:
        found = asyncio.run(main(predictor))
        assert predictor.num_waiting == 0
    assert [each for each in found if isinstance(each, int)] == [0, 4, 6, 10, 12]
    assert [type(found[k]) for k in (1, 4)] == [asyncio.CancelledError] * 2
    assert sorted(sum(doubling.batches, [])) == [0, 1, 2, 3, 5, 6]


def test_many_cancelled_callers_leave_nothing_behind() -> None:
    doubling = Doubling(is_open=False)
    with AsyncPredictor(doubling, max_batch=2, max_queue=3) as predictor:
        predictor.submit(0)
        assert doubling.entered.acquire(timeout=20)
        for k in range(1000):
            assert predictor.submit(k).cancel()
        assert predictor.num_waiting == 0 and not predictor._unprepared and not predictor._prepared
        doubling.gate.set()
        assert predictor.submit(5).result(20) == 10


def test_close_answers_those_that_wait_and_refuses_others() -> None:
    doubling = Doubling()
    predictor = AsyncPredictor(doubling, max_batch=2, max_delay=0.2)
    futures = [predictor.submit(k) for k in range(5)]
    predictor.close()
    assert [each.result(0) for each in futures] == [0, 2, 4, 6, 8]
    assert not any(thread.is_alive() for thread in predictor._threads)
    with pytest.raises(PredictorClosedError):
        predictor.submit(1)
    predictor.close()


def test_close_gives_up_after_a_time() -> None:
    doubling = Doubling(is_open=False)
    predictor = AsyncPredictor(doubling, max_batch=1)
    futures = [predictor.submit(k) for k in range(3)]
    assert doubling.entered.acquire(timeout=20)
    closing = threading.Thread(target=predictor.close, args=(0.05,))
    closing.start()
    for future in futures[1:]:
        assert isinstance(future.exception(20), PredictorClosedError)
    doubling.gate.set()
    closing.join(20)
    assert not closing.is_alive() and futures[0].result(0) == 0


def test_several_event_loops_and_threads_share_one() -> None:
    doubling = Doubling()
    with AsyncPredictor(doubling, max_batch=8) as predictor:
        found: dict[int, int] = {}

        def caller(k: int) -> None:
            found[k] = asyncio.run(predictor.detect(k)) if k % 2 else predictor.submit(k).result(20)

        threads = [threading.Thread(target=caller, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert found == {k: 2 * k for k in range(6)}


def test_a_predictor_that_is_only_called() -> None:
    class Called:
        class_names = ("a",)

        def __call__(self, images: list[np.ndarray]) -> list[float]:
            return [float(image[0, 0, 0]) for image in images]

    with AsyncPredictor(Called()) as predictor:
        image = np.arange(3.0).reshape(1, 1, 3)
        assert predictor.submit(image).result(20) == 0
        assert predictor.submit(image, color="rgb").result(20) == 2


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"max_queue": 0}, {"workers": 0}, {"max_delay": -1.0}, {"when_full": "never"}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AsyncPredictor(Doubling(), **options)


class Number:
    """A number whose end a weak reference can see."""

    def __init__(self, value: int) -> None:
        self.value = value


class Watching(Doubling):
    """Knows which of its images and network inputs are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: weakref.WeakSet[Number] = weakref.WeakSet()

    def pixels(self, image: Any, color: str = "bgr") -> np.ndarray:
        self.alive.add(image)
        return super().pixels(image.value, color)

    def network_input(self, pixels: np.ndarray) -> Any:
        made = Number(int(pixels[0, 0]))
        self.alive.add(made)
        return made

    def run(self, inputs: Sequence[Any]) -> list[int]:
        return super().run([each.value for each in inputs])


@pytest.mark.parametrize("value", [1, -1, 13])
def test_nothing_of_an_image_outlives_its_answer(value: int) -> None:
    watching = Watching()

    async def main() -> None:
        async with AsyncPredictor(watching, max_delay=0.0) as predictor:
            await asyncio.gather(predictor.detect(Number(value)), return_exceptions=True)
            assert await predictor.detect(Number(2)) == 4  # the threads let go of the one before

    gc.disable()  # only counted references end anything
    try:
        asyncio.run(main())
        assert not watching.alive
    finally:
        gc.enable()
