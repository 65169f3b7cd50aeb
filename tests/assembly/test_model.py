"""`engine.assembly.model`: what no test of a part covers."""

from __future__ import annotations

import pytest
import torch

from engine import distributed
from engine.assembly.device import build_device, warn_without_gpu
from engine.assembly.model import build_model
from engine.config import get_cfg
from engine.errors import InputError
from engine.log import get_logger


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def device(name: str) -> torch.device:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = name
    return build_device(cfg)


def test_device_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device("cuda:1") == device("cuda") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "sync", "processes", "expected"),
    [
        ("cpu", False, 2, []),
        ("cpu", True, 1, []),  # as on any device: there is nobody to average with
        ("cpu", True, 2, ["MODEL.USE_SYNCBN is off"]),
        ("cuda", False, 1, ["MODEL.DEVICE is cuda"]),
        ("cuda", True, 2, ["MODEL.DEVICE is cuda", "MODEL.USE_SYNCBN is off"]),
    ],
)
def test_what_a_cpu_cannot_do_is_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
    sync: bool,
    processes: int,
    expected: list[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.USE_SYNCBN = device, sync
    monkeypatch.setattr(get_logger(), "propagate", True)
    warn_without_gpu(cfg)
    assert len(caplog.messages) == len(expected)
    assert all(message.startswith(start) for message, start in zip(caplog.messages, expected, strict=True))


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_device_as_written(two_gpus: None, name: str) -> None:
    assert device(name) == torch.device(name)


def test_a_gpu_that_is_not_there(two_gpus: None) -> None:
    with pytest.raises(InputError, match=r"cuda:2, but this machine has 2 GPU\(s\): write cuda:1 or less"):
        device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_each_process_has_its_own_gpu(two_gpus: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # before the processes have met
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device(name) == torch.device("cuda:1")


def test_more_processes_than_gpus(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="no GPU for process 2 of this machine, which has 2 GPU"):
        distributed.init_process_group(torch.device("cuda"))


@pytest.mark.parametrize(("width", "is_safe"), [(15, False), (16, True)])
def test_thin_shortcuts_keep_torch_s_own_layout(width: int, is_safe: bool, said: pytest.LogCaptureFixture) -> None:
    """In the other one their gradients would be written past the end, see docs/decisions/channels_last.md."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.RPN_ONLY, cfg.MODEL.ATSS_ON, cfg.MODEL.ATSS.NUM_CLASSES = "cpu", True, True, 0
    cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = "R-18-FPN-RETINANET", width
    weight = build_model(cfg, ["hole"]).backbone.body.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == is_safe
    assert weight.is_contiguous() != is_safe
    named = ["backbone.body.layer2.0.downsample.0, which has 15" in text for text in said.messages]
    assert named == ([] if is_safe else [True])
