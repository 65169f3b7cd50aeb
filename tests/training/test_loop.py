from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.assembly.solver import build_optimizer, build_schedule, run_length
from engine.data.batch import Batch
from engine.errors import InputError
from engine.solver.curves import ScheduleSettings, multistep
from engine.solver.schedule import Schedule
from engine.structures import ImageBatch, Targets
from engine.training.loop import Hook, Step, Stop, run, train_step
from engine.training.nonfinite import NonFinite
from engine.training.precision import Clipping, Precision
from tests.modeling.conftest import GoldenCase

CPU = torch.device("cpu")


class Toy(nn.Module):
    """Two losses of one weight: w and 2 w times the mean of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, torch.Tensor]:
        mean = images.tensor.mean()
        return {"loss_a": self.weight * mean, "loss_b": 2 * self.weight * mean}


def _batch(value: float, image_id: int = 5) -> Batch:
    empty = Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), image_id, (4, 4))
    return Batch(ImageBatch.from_list([torch.full((3, 4, 4), value)]), [empty])


class Recorder(Hook):
    def __init__(self) -> None:
        self.events: list[str] = []

    def before_train(self, start: int) -> None:
        self.events.append(f"before {start}")

    def after_step(self, step: Step) -> None:
        self.events.append(f"step {step.iteration} lr {step.lr:g} ids {step.image_ids}")

    def after_train(self, iteration: int) -> None:
        self.events.append(f"after {iteration}")

    def close(self) -> None:
        self.events.append("close")


def test_one_step() -> None:
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses, norm = train_step(model, [_batch(2.0)], optimizer, Precision(CPU))
    assert {name: value.item() for name, value in losses.items()} == {"loss_a": 2, "loss_b": 4} and norm == 6
    assert model.weight.item() == pytest.approx(1 - 0.1 * 6)
    assert not any(value.requires_grad for value in losses.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(value: float, recwarn: pytest.WarningsRecorder) -> None:
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError) as caught:
        train_step(model, [_batch(value, image_id=77)], optimizer, Precision(CPU))
    message = str(caught.value)
    assert "not finite" in message and "77" in message and "loss_a" in message and "SOLVER.BASE_LR" in message
    assert "\n" not in message and model.weight.item() == 1
    assert not recwarn.list, recwarn.list[0].message


class Root(Toy):
    """The square root of a weight at 0: the loss is finite, its gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.weight)

    def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, torch.Tensor]:
        return {"loss_a": self.weight.sqrt() + images.tensor.mean() * 0}


@pytest.mark.parametrize("clipping", [Clipping(), Clipping(norm=1.0), Clipping(value=1.0)])
def test_gradients_that_are_not_finite_change_nothing(clipping: Clipping) -> None:
    model = Root()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NonFinite, match=r"^the gradients are not finite \(loss_a 0\) at images 7, 8:") as caught:
        train_step(model, [_batch(1.0, 7), _batch(1.0, 8)], optimizer, Precision(CPU), clipping)
    assert model.weight == 0 and len(caught.value.batches) == 2


def test_hooks_around_the_loop() -> None:
    model, recorder = Toy(), Recorder()
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 1.0, "initial_lr": 1.0}])
    schedule = Schedule(optimizer, multistep(ScheduleSettings(5, [4])), 5)
    run(model, [_batch(0.0, 1), _batch(0.0, 2)], optimizer, schedule, Precision(CPU), [recorder], start=3)
    assert recorder.events == ["before 3", "step 3 lr 1 ids [1]", "step 4 lr 0.1 ids [2]", "after 5", "close"]


def test_hooks_are_closed_when_training_fails() -> None:
    model, recorder = Toy(), Recorder()
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 1.0, "initial_lr": 1.0}])
    schedule = Schedule(optimizer, multistep(ScheduleSettings(5)), 5)
    with pytest.raises(InputError):
        run(model, [_batch(float("nan"))], optimizer, schedule, Precision(CPU), [recorder])
    assert recorder.events == ["before 0", "close"]


def test_a_hook_that_fails_to_close_keeps_no_other_from_it() -> None:
    class Failing(Hook):
        def close(self) -> None:
            raise InputError("the disk is full")

    recorder = Recorder()
    optimizer = torch.optim.SGD([{"params": list((model := Toy()).parameters()), "lr": 1.0, "initial_lr": 1.0}])
    with pytest.raises(InputError, match="the disk is full"):
        run(
            model,
            [],
            optimizer,
            Schedule(optimizer, multistep(ScheduleSettings(5)), 5),
            Precision(CPU),
            [Failing(), recorder],
        )
    assert recorder.events[-1] == "close"


def test_golden_trajectory(golden_dir: Path, tmp_path: Path) -> None:
    """Four steps of the published code: rates, losses and the weights after them."""
    golden = GoldenCase(golden_dir / "atss" / "small_box.pth", tmp_path)
    cfg = golden.cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(["SOLVER.STEPS", (3,), "SOLVER.WARMUP_ITERS", 2, "SOLVER.MAX_ITER", 4])
    model = golden.model.train()
    optimizer = build_optimizer(cfg, model)
    schedule = build_schedule(cfg, optimizer, run_length(cfg, num_images=1))
    batch = Batch(golden.batch, golden.targets())
    for iteration, (rate, *expected) in enumerate(golden.data["trajectory_lr_cls_reg_ctr"]):
        schedule.set(iteration)
        losses, _ = train_step(model, [batch], optimizer, Precision(CPU))
        ours = [losses[name].item() for name in ("loss_cls", "loss_reg", "loss_centerness")]
        assert ours == pytest.approx(expected, rel=5e-4), iteration
        rates = {group["lr"] for group in optimizer.param_groups}
        assert min(rates) == pytest.approx(rate) and max(rates) == pytest.approx(2 * rate)
    state = model.state_dict()
    for name, expected in golden.data["state_after_trajectory"].items():
        if "cell_anchors" not in name:
            assert torch.allclose(state[name], expected, rtol=1e-3, atol=2e-4), name


def test_chance_depends_on_the_iteration_alone() -> None:
    """The random numbers of an iteration do not depend on whether earlier iterations ran in this process."""

    class Drawing(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.drawn: list[float] = []

        def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, torch.Tensor]:
            self.drawn.append(torch.rand(()).item())
            return super().forward(images, targets)

    def drawn(num: int, start: int) -> list[float]:
        torch.manual_seed(7)
        model = Drawing()
        torch.rand(start + 1)  # building a model draws random numbers too
        optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.0, "initial_lr": 0.0}])
        schedule = Schedule(optimizer, multistep(ScheduleSettings(9, [9])), 9)
        run(model, [_batch(0.0)] * num, optimizer, schedule, Precision(CPU), start=start)
        return model.drawn

    whole = drawn(5, 0)
    assert len(set(whole)) == 5 and drawn(2, 3) == whole[3:]


def test_time_in_hooks_is_not_time_waiting_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("engine.training.loop.time.perf_counter", lambda: now[0])
    steps: list[Step] = []

    class Slow(Hook):
        def after_step(self, step: Step) -> None:
            steps.append(step)
            now[0] += 10.0

    def batches() -> Iterator[Batch]:
        for _ in range(2):
            now[0] += 1.0
            yield _batch(0.0)

    optimizer = torch.optim.SGD([{"params": list((model := Toy()).parameters()), "lr": 0.0, "initial_lr": 0.0}])
    run(model, batches(), optimizer, Schedule(optimizer, multistep(ScheduleSettings(2)), 2), Precision(CPU), [Slow()])
    assert [(step.data_seconds, step.seconds) for step in steps] == [(1.0, 1.0), (1.0, 11.0)]


class Teller(Hook):
    """Tells what it is called for, with the weight of the model; stops the training if asked to."""

    def __init__(self, name: str, model: Toy, told: list[str], stops: bool = False) -> None:
        self.name, self.model, self.told, self.stops = name, model, told, stops

    def _tell(self, what: str) -> None:
        self.told.append(f"{self.name} {what} {self.model.weight.item():g}")

    def before_train(self, start: int) -> None:
        self._tell("begins")

    def before_update(self) -> None:
        self._tell("updates")

    def after_step(self, step: Step) -> None:
        self._tell("steps")
        if self.stops:
            raise Stop("enough")

    def settle(self) -> None:
        self._tell("settles")

    def after_train(self, iteration: int) -> None:
        self._tell("ends")


@pytest.mark.parametrize("stops", [False, True])
def test_all_hooks_have_seen_a_step_before_one_settles(stops: bool) -> None:
    """The weight changes between `before_update` and `after_step`, and what is due from before comes first."""
    model, told = Toy(), []
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.25, "initial_lr": 0.25}])
    hooks = [Teller("a", model, told, stops), Teller("b", model, told)]
    schedule = Schedule(optimizer, multistep(ScheduleSettings(1)), 1)
    run(model, [_batch(1.0)], optimizer, schedule, Precision(CPU), hooks)
    expected = ["begins 1", "settles 1", "updates 1", "steps 0.25", "settles 0.25", "ends 0.25"]
    assert told == [f"{name} {each}" for each in expected if not (stops and each == "settles 0.25") for name in "ab"]
