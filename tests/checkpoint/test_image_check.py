"""Images that a body was not trained on are told from the statistics of its first norm."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.checkpoint.image_check import check_first_images, first_norm
from engine.layers.norm import FrozenBatchNorm, GroupNorm
from engine.structures import ImageBatch

SETTINGS = {"INPUT.PIXEL_MEAN": (0.5, 0.5, 0.5), "INPUT.TO_BGR255": False}


def photographs(num: int, seed: int = 0) -> Tensor:
    """Smooth images in 0..1 with some noise, (N, 3, 64, 96)."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 5, 7, generator=random)
    smooth = F.interpolate(coarse, size=(64, 96), mode="bicubic", align_corners=True)
    return (smooth + 0.05 * torch.randn(num, 3, 64, 96, generator=random)).clamp(0, 1)


def right(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.25


class Body(nn.Module):
    def __init__(self, norm: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.norm = norm
        self.seen = 0

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        self.seen += 1
        return [x]


@pytest.fixture(scope="module")
def body() -> Body:
    """With the statistics of `photographs`; half of its filters respond to edges only."""
    torch.manual_seed(0)
    body = Body(nn.BatchNorm2d(32, momentum=None))
    with torch.no_grad():
        body.conv.weight[:16] -= body.conv.weight[:16].mean(dim=(1, 2, 3), keepdim=True)
        body(right(photographs(8)))
    return body.eval()


def test_statistics_are_those_of_the_maps(body: Body) -> None:
    images = right(photographs(3, seed=4))
    found = first_norm(body, images)
    maps = body.conv(images).detach().double()
    torch.testing.assert_close(found.mean, maps.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(found.variance, maps.var(dim=(0, 2, 3), correction=0) + body.norm.eps)
    assert found.name == "norm"


WRONG = {
    "not divided by 255": lambda x: (x * 255 - 0.5) / 0.25,
    "divided twice": lambda x: right(x / 255),
    "mean not subtracted": lambda x: x / 0.25,
    "caffe2": lambda x: x * 255 - 110,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_constants_are_told(body: Body, wrong: str) -> None:
    assert first_norm(body, WRONG[wrong](photographs(4, seed=9))).fault()


GREY = photographs(4, seed=3).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    "images",
    [
        photographs(4, seed=9),
        photographs(1, seed=5),
        GREY,
        (GREY > 0.5).float(),  # a scan of black and white
        0.45 + 0.1 * photographs(2),  # of little contrast
        0.4 + 0.6 * photographs(2),
        0.6 * photographs(2),
    ],
)
def test_right_constants_are_not(body: Body, images: Tensor) -> None:
    assert first_norm(body, right(images)).fault() is None


def test_stated_constants_are_only_checked_for_the_range(body: Body) -> None:
    """White paper is then white paper; values beyond 255 are still told."""
    bright, deep = (
        first_norm(body, WRONG["mean not subtracted"](photographs(2))),
        first_norm(body, right(photographs(2) * 256)),
    )
    assert bright.fault() and bright.fault(is_stated=True) is None
    assert "times those of the training" in deep.fault(is_stated=True)


def test_padding_does_not_count(body: Body) -> None:
    images = list(right(photographs(2, seed=6)))
    narrow = [images[0], images[1][:, :20, :30]]
    alone = first_norm(body, images[0][None])
    padded = first_norm(body, F.pad(images[0][None], (0, 160, 0, 64)))
    torch.testing.assert_close(padded.mean, alone.mean, rtol=1e-2, atol=1e-2)
    assert first_norm(body, ImageBatch.from_list(narrow, 64).tensor).fault() is None
    assert first_norm(body, torch.zeros(1, 3, 32, 32)) is None


def without_check(norm: nn.Module | None) -> Body:
    return Body(norm).eval()


@pytest.mark.parametrize(
    "norm",
    [
        None,
        nn.BatchNorm2d(32),  # new
        FrozenBatchNorm(32),  # the affine layers of Caffe2
        GroupNorm(32),
        nn.BatchNorm2d(32, track_running_stats=False),
    ],
)
def test_a_body_without_statistics_is_not_checked(norm: nn.Module | None, said: pytest.LogCaptureFixture) -> None:
    body = without_check(norm)
    images = photographs(1) * 255
    assert first_norm(body, images) is None
    check_first_images(body, body, "w.pth", SETTINGS)
    body(images)
    assert said.messages == []


def test_one_line_once_and_nothing_stays(body: Body, said: pytest.LogCaptureFixture) -> None:
    images = photographs(2)
    model = nn.Sequential(copy.deepcopy(body)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = copy.deepcopy(model)(images * 255)[0]
    check_first_images(model, model[0], "w.pth", SETTINGS)
    random = torch.get_rng_state()
    found = model(images * 255)[0]
    assert torch.equal(found, expected) and torch.equal(torch.get_rng_state(), random)
    assert model[0].seen == body.seen + 1
    (line,) = said.messages
    for part in ("w.pth", "norm", "times those of the training", "INPUT.PIXEL_MEAN (0.5, 0.5, 0.5)"):
        assert part in line
    assert not any(module._forward_pre_hooks for module in model.modules())
    model(images * 255)
    assert len(said.messages) == 1 and state.keys() == model.state_dict().keys()


def test_a_model_that_waits_can_be_copied_and_sent(body: Body, said: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(copy.deepcopy(body))
    check_first_images(model, model[0], "w.pth", SETTINGS)
    for each in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        said.clear()
        each(photographs(1) * 255)
        assert len(said.messages) == 1 and not each._forward_pre_hooks
    assert model._forward_pre_hooks


def test_a_compiled_program_has_no_check(body: Body) -> None:
    model = nn.Sequential(copy.deepcopy(body))
    check_first_images(model, model[0], "w.pth", SETTINGS)
    exported = torch.export.export(model, (photographs(1),), strict=False)
    assert sum(node.op == "call_function" and "conv" in str(node.target) for node in exported.graph.nodes) == 1


def test_another_thread_that_shares_the_body_goes_on() -> None:
    """While one thread looks at the first norm, another one passes it."""
    looking, passed = threading.Event(), threading.Event()
    looker = threading.get_ident()

    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if threading.get_ident() == looker:
                looking.set()
                assert passed.wait(20)
            return x

    norm_layer = nn.BatchNorm2d(3)
    norm_layer.running_mean += 1
    body = nn.Sequential(Gate(), norm_layer).eval()
    images = torch.randn(1, 3, 8, 8)
    outputs = []

    def use() -> None:
        looking.wait(20)
        outputs.append(body(images))
        passed.set()

    thread = threading.Thread(target=use)
    thread.start()
    found = first_norm(body, images)
    thread.join()
    assert found is not None and outputs[0].shape == images.shape
    assert not norm_layer._forward_pre_hooks
