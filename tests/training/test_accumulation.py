"""Several passes per update: their gradients are averaged, and processes exchange them once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.data.batch import Batch
from engine.solver.curves import ScheduleSettings, multistep
from engine.solver.schedule import Schedule
from engine.structures import ImageBatch, Targets
from engine.training.loop import Hook, Step, run, train_step
from engine.training.precision import Clipping, Precision

PRECISION = Precision(torch.device("cpu"))


class Mean(nn.Module):
    """Two losses that are means over the images, not linear in the weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, Tensor]:
        outputs = self.layer(images.tensor[:, :, 0, 0].double()).tanh()  # (N, 2)
        return {"loss_a": outputs[:, 0].square().mean(), "loss_b": outputs[:, 1].mean()}


def _batch(values: Tensor, first_id: int = 0) -> Batch:
    """`values` (N, 3): images of one pixel."""
    none = torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool()
    targets = [Targets(*none, first_id + i, (1, 1)) for i in range(len(values))]
    return Batch(ImageBatch.from_list(list(values[:, :, None, None])), targets)


def _update(model: nn.Module, batches: list[Batch], clipping: Clipping) -> tuple[dict[str, float], Tensor]:
    losses, norm = train_step(model, batches, torch.optim.SGD(model.parameters(), lr=0.5), PRECISION, clipping)
    return {name: value.item() for name, value in losses.items()}, norm


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.sampled_from([Clipping(), Clipping(norm=0.1)]))
def test_passes_equal_one_batch(num_passes: int, each: int, seed: int, clipping: Clipping) -> None:
    values = torch.randn(num_passes * each, 3, generator=torch.Generator().manual_seed(seed))
    one, many = Mean(seed), Mean(seed)
    expected, expected_norm = _update(one, [_batch(values)], clipping)
    losses, norm = _update(many, [_batch(part) for part in values.split(each)], clipping)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert norm.item() == pytest.approx(expected_norm.item(), rel=1e-6)
    for ours, theirs in zip(many.parameters(), one.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_the_loop_takes_so_many_batches_an_iteration() -> None:
    steps: list[Step] = []

    class Recorder(Hook):
        def after_step(self, step: Step) -> None:
            steps.append(step)

    model = Mean()
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.1, "initial_lr": 0.1}])
    batches = [_batch(torch.ones(2, 3), first_id=2 * i) for i in range(6)]
    schedule = Schedule(optimizer, multistep(ScheduleSettings(2)), 2)
    run(model, batches, optimizer, schedule, PRECISION, [Recorder()], accumulate=3)
    assert [step.image_ids for step in steps] == [list(range(6)), list(range(6, 12))]


def test_processes_exchange_gradients_in_the_last_pass_only(tmp_path: Path) -> None:
    """In a separate process, since gloo leaves threads behind."""
    process = multiprocessing.get_context("spawn").Process(target=_watch_exchange, args=(tmp_path / "store",))
    process.start()
    process.join()
    assert process.exitcode == 0


def _watch_exchange(store: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    seen: list[bool] = []

    class Watched(DistributedDataParallel):
        def forward(self, *inputs: object) -> object:
            seen.append(self.require_backward_grad_sync)
            return super().forward(*inputs)

    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    alone, wrapped = Mean(), Watched(Mean())
    batches = [_batch(part) for part in values.split(2)]
    losses, _ = _update(wrapped, batches, Clipping())
    assert seen == [False, False, True]
    assert losses == _update(alone, batches, Clipping())[0]
    assert all(torch.equal(*pair) for pair in zip(wrapped.parameters(), alone.parameters(), strict=True))
