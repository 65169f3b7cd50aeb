from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.analysis import timing
from engine.analysis.timing import noise, time_step
from engine.structures import ImageBatch, Targets
from engine.training.precision import Precision


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.steps = 0

    def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, Tensor]:
        self.steps += 1
        return {"loss": (self.weight * images.tensor).square().mean()}


class Clock:
    """Time that passes by `step` at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def timed(monkeypatch: pytest.MonkeyPatch, wall: float, computed: float, threads: int) -> timing.StepTime:
    model = Model()
    monkeypatch.setattr(timing.time, "perf_counter", Clock(wall))
    monkeypatch.setattr(timing.time, "process_time", Clock(computed))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    found = time_step(model, optimizer, Precision(torch.device("cpu")), noise(1, 3, (32, 40), 2, 32))
    assert model.steps <= 2 * (timing.WARM_UP + timing.MOST)
    return found


def test_a_quiet_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timed(monkeypatch, wall=1.0, computed=1.9, threads=2)
    assert found == timing.StepTime(pytest.approx(1.0), False)


def test_a_busy_machine_is_estimated_from_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timed(monkeypatch, wall=3.0, computed=2.0, threads=2)  # a third of the time of two processors
    assert found == timing.StepTime(pytest.approx(2.0 * (0.1 + 0.9 / 2)), True)


def test_one_thread_counts_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, wall=3.0, computed=2.9, threads=1) == timing.StepTime(pytest.approx(3.0), False)
    assert timed(monkeypatch, wall=3.0, computed=0.5, threads=1) == timing.StepTime(pytest.approx(0.5), True)


def test_noise_has_boxes_in_its_images() -> None:
    batch = noise(2, 3, (60, 90), 7, 32)
    assert batch.images.tensor.shape == (2, 3, 64, 96) and batch.images.sizes == [(60, 90)] * 2
    for each in batch.targets:
        assert len(each.boxes) == 7 and (each.boxes[:, 2:] > each.boxes[:, :2]).all()
        assert (each.boxes >= 0).all() and (each.boxes[:, 2] <= 90).all() and (each.boxes[:, 3] <= 60).all()
