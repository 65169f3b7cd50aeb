"""Frozen parts of a body keep their weights, their statistics and their outputs, whatever is done to the model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.assembly.model import with_synchronised_norms
from engine.checkpoint.average import recompute_statistics
from engine.errors import InputError
from engine.modeling.bodies import BODIES, freeze, is_frozen
from engine.modeling.bodies.resnet import Deformable, ResNet
from engine.training.ema import EMAHook


class Plain(nn.Module):
    """A user's body whose parts are single layers, and lists that are made for the call of `freeze`."""

    out_channels, strides = (8, 8), (4, 8)

    def __init__(self, freeze_at: int = 0) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.stage = nn.Sequential(nn.Conv2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.Dropout(0.5))
        freeze(self.layer_groups(), freeze_at)

    def layer_groups(self) -> list[nn.Module]:
        return [nn.ModuleList([self.conv, self.bn]), self.stage]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.bn(self.conv(x))
        return [x, self.stage(x)]


class Wrapper(nn.Module):
    """As a detector holds its body."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor, targets: object = None) -> list[Tensor]:
        return self.body(images)


def narrow(freeze_at: int) -> ResNet:
    return BODIES.get("R-18")(stem_channels=8, width_per_group=8, norm_name="BN", freeze_at=freeze_at)


def changed_by_training(body: nn.Module) -> set[str]:
    """The parts of `body` of which a pass in training mode changes buffers."""
    body.train()
    before = {name: value.clone() for name, value in body.named_buffers()}
    body(torch.randn(2, 3, 64, 64))
    return {name.split(".")[0] for name, value in body.named_buffers() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("freeze_at", [0, 1, 3, 5])
def test_statistics_of_frozen_parts_stay(freeze_at: int) -> None:
    parts = ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert changed_by_training(narrow(freeze_at)) == set(parts[freeze_at:])


@pytest.mark.parametrize(("freeze_at", "moving"), [(0, {"bn", "stage"}), (1, {"stage"}), (2, set())])
def test_parts_may_be_lists_made_for_the_call(freeze_at: int, moving: set[str]) -> None:
    assert changed_by_training(Plain(freeze_at)) == moving


SAME: dict[str, Callable[[nn.Module], nn.Module]] = {
    "train and eval": lambda body: body.eval().train(),
    "in a model": lambda body: Wrapper(body).train().body,
    "copied": copy.deepcopy,
    "pickled": lambda body: pickle.loads(pickle.dumps(body)),
    "averaged": lambda body: EMAHook(body, 0.9).model,
    "with norms for several processes": with_synchronised_norms,
    "in other memory": lambda body: body.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_frozen_outlasts(change: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    body = change(Plain(freeze_at=2))
    assert changed_by_training(body) == set()
    images = torch.randn(2, 3, 64, 64)
    for trained, tested in zip(body.train()(images), body.eval()(images), strict=True):  # without dropout, too
        assert torch.equal(trained, tested)


def test_only_what_trains_is_synchronised() -> None:
    body = with_synchronised_norms(narrow(2))
    kinds = {name: type(m) for name, m in body.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds.pop("stem.bn1") is nn.BatchNorm2d
    assert {kind for name, kind in kinds.items() if name.startswith("layer1.")} == {nn.BatchNorm2d}
    assert {kind for name, kind in kinds.items() if name[:6] > "layer1"} == {nn.SyncBatchNorm}


def test_a_norm_that_also_activates_is_not_replaced() -> None:
    class Activated(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    with pytest.raises(InputError, match="^MODEL.USE_SYNCBN: 1 is a Activated, which cannot be replaced"):
        with_synchronised_norms(nn.Sequential(nn.Conv2d(3, 3, 1), Activated(3)))


def test_recomputed_statistics_leave_them_alone() -> None:
    model = Wrapper(narrow(2))
    found = recompute_statistics(model, [(torch.randn(2, 3, 64, 64), [])])
    assert {name.split(".")[1] for name in found} == {"layer2", "layer3", "layer4"}
    assert int(model.body.stem.bn1.num_batches_tracked) == 0 and not model.body.stem.bn1.running_mean.any()


def test_only_frozen_modules_are_marked() -> None:
    body = narrow(1)
    assert is_frozen(body.stem) and is_frozen(body.stem.bn1) and not is_frozen(body.layer1) and not is_frozen(body)


def test_more_parts_than_there_are() -> None:
    with pytest.raises(InputError, match="^MODEL.BACKBONE.FREEZE_CONV_BODY_AT is 3, but the body has 2 parts"):
        Plain(freeze_at=3)


@pytest.mark.parametrize("stages", [(True,), (False,) * 5])
def test_deformable_stages_are_counted(stages: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match="deformable must say of each of the 4 stages"):
        ResNet(18, deformable=Deformable(stages))
