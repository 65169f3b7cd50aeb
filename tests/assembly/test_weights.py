"""Conventions that weights bring along."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Predictor
from engine.assembly.model import build_model
from engine.assembly.weights import follow_conventions, load_initial_weights, stored_conventions
from engine.checkpoint import io
from engine.checkpoint.heads import SURGERIES
from engine.checkpoint.weights import WeightFile
from engine.config import get_cfg
from engine.errors import InputError


@pytest.mark.parametrize(
    ("conventions", "reason"),
    [
        ({"MODEL.PIXEL_CONVENTIO": "continuous"}, "unknown key MODEL.PIXEL_CONVENTIO; did you mean "),
        ({"INPUT.PIXEL_STD": ("a",), "SEED": "x"}, "INPUT.PIXEL_STD .*; SEED must be an int"),
    ],
)
def test_conventions_that_cannot_be_followed_name_the_weights(conventions: dict, reason: str) -> None:
    file = WeightFile({"w": torch.ones(1)}, None, None, "w.pth", "engine", conventions)
    with pytest.raises(InputError, match=f"^w.pth: its conventions cannot be followed: {reason}"):
        follow_conventions(get_cfg(), file)


@pytest.mark.parametrize(("trained_with", "configured"), [(None, 1), (4, 3), (4, 1)])
def test_weights_of_other_channels_are_told(trained_with: int | None, configured: int) -> None:
    cfg = get_cfg()
    cfg.INPUT.CHANNELS = configured
    conventions = {"INPUT.CHANNELS": trained_with} if trained_with else {}
    file = WeightFile({"w": torch.ones(1)}, None, None, "w.pth", "engine", conventions)
    words = (
        f"w.pth was trained with INPUT.CHANNELS {trained_with or 3}, but the configuration has {configured}; use the"
    )
    with pytest.raises(InputError, match=words):
        follow_conventions(cfg, file)
    cfg.INPUT.CHANNELS = trained_with or 3
    follow_conventions(cfg, file)


IMAGENET = {
    "INPUT.PIXEL_MEAN": (0.485, 0.456, 0.406),
    "INPUT.PIXEL_STD": (0.229, 0.224, 0.225),
    "INPUT.TO_BGR255": False,
}


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("engine"), "propagate", True)
    caplog.set_level(logging.WARNING, "engine")
    return caplog


def small(*keys: Any) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RPN_ONLY", True, "MODEL.ATSS_ON", True, "MODEL.WEIGHT", ""])
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET", "MODEL.RESNETS.NORM", "BN"])
    cfg.merge_from_list(["MODEL.RETINANET.USE_C5", False, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32])
    cfg.merge_from_list(["MODEL.ATSS.NUM_CONVS", 1, "MODEL.ATSS.NUM_CLASSES", 3, *keys])
    return cfg


def words(conventions: dict[str, Any]) -> list[Any]:
    return [word for pair in conventions.items() for word in pair]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_normalisation_of_a_training_is_followed_in_tests(
    tmp_path: Path, suffix: str, warned: pytest.LogCaptureFixture
) -> None:
    """Stored with every checkpoint of ours; with the same values nothing is warned."""
    conventions = stored_conventions(small(*words(IMAGENET)))
    assert conventions == IMAGENET
    path = tmp_path / f"model{suffix}"
    io.save(path, {"format": io.FORMAT, "model": {"w": torch.ones(1)}, "conventions": conventions})
    file = io.load(path)
    weights = WeightFile(file["model"], None, None, str(path), "engine", file["conventions"])
    cfg = small()
    follow_conventions(cfg, weights)
    assert stored_conventions(cfg) == IMAGENET
    (line,) = warned.messages
    assert "needs INPUT.PIXEL_MEAN (0.485, 0.456, 0.406)" in line and line.endswith(": set for this run")
    follow_conventions(cfg, weights)
    assert len(warned.messages) == 1


def test_a_training_from_weights_with_other_images_is_told(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    cfg = small("MODEL.WEIGHT", str(tmp_path / "model.pth"))
    model = build_model(cfg)
    state = {"format": io.FORMAT, "model": model.state_dict(), "conventions": IMAGENET}
    io.save(cfg.MODEL.WEIGHT, state)
    load_initial_weights(cfg, model)
    (line,) = warned.messages
    assert "model.pth was trained with INPUT.PIXEL_MEAN (0.485" in line and "consider setting it" in line
    assert stored_conventions(cfg)["INPUT.TO_BGR255"] is True  # a training follows its own configuration
    warned.clear()
    same = small("MODEL.WEIGHT", cfg.MODEL.WEIGHT, *words(IMAGENET))
    load_initial_weights(same, model)
    rounded = small("MODEL.WEIGHT", cfg.MODEL.WEIGHT, *words(IMAGENET | {"INPUT.PIXEL_MEAN": (0.4851, 0.456, 0.4059)}))
    load_initial_weights(rounded, model)
    assert warned.messages == []


def test_weights_of_another_model_are_told_by_nothing_but_the_error(
    tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    cfg = small("MODEL.WEIGHT", str(tmp_path / "model.pth"))
    io.save(cfg.MODEL.WEIGHT, {"format": io.FORMAT, "model": {"w": torch.ones(1)}, "conventions": IMAGENET})
    with pytest.raises(InputError, match="nothing in .*model.pth matches this model"):
        load_initial_weights(cfg, build_model(cfg))
    assert warned.messages == []


@pytest.mark.parametrize(
    ("left_out", "is_told"),
    [
        ("rpn.", "rpn.head.cls_tower.0.weight: what it detects means little"),  # as weights of ImageNet have
        ("rpn.head.cls_logits.bias", "1 tensors of the model are not in .*first rpn.head.cls_logits.bias: "),
        ("backbone.body.stem.bn1.num_batches_tracked", ""),
        ("nothing", ""),
    ],
)
def test_a_test_of_a_model_with_random_parts_is_told(
    tmp_path: Path, warned: pytest.LogCaptureFixture, left_out: str, is_told: str
) -> None:
    cfg = small()
    state = {name: value for name, value in build_model(cfg).state_dict().items() if not name.startswith(left_out)}
    path = tmp_path / "model.pth"
    io.save(path, {"format": io.FORMAT, "model": state, "conventions": stored_conventions(cfg)})
    Predictor(cfg, path)
    lines = [line for line in warned.messages if "means little" in line]
    assert len(lines) == bool(is_told) and all(re.search(is_told, line) for line in lines)


def test_other_channels_have_other_means(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    """The means of colours are no advice for images of one channel."""
    io.save(
        tmp_path / "m.pth", {"format": io.FORMAT, "model": build_model(small()).state_dict(), "conventions": IMAGENET}
    )
    grey = small("INPUT.CHANNELS", 1, "INPUT.PIXEL_MEAN", (114.0,), "INPUT.PIXEL_STD", (1.0,))
    grey.MODEL.WEIGHT = str(tmp_path / "m.pth")
    load_initial_weights(grey, build_model(grey))
    assert not any("was trained with" in line for line in warned.messages)


def test_imagenet_weights_of_torchvision_state_theirs(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    cfg = small("MODEL.WEIGHT", str(tmp_path / "resnet18.pth"))
    load_initial_weights(cfg, build_model(cfg))
    assert any("was trained with INPUT.TO_BGR255 False" in line and "0.485" in line for line in warned.messages)


@pytest.fixture
def registered() -> Any:
    """Registers surgeries for a test."""
    names: list[str] = []

    def register(name: str, surgery: Callable[..., Any]) -> None:
        SURGERIES.register(name)(surgery)
        names.append(name)

    yield register
    for name in names:
        SURGERIES._obj_map.pop(name)


def load_with(surgery: str, tmp_path: Path) -> nn.Module:
    cfg = small("IMPORTS", ["json"], "MODEL.WEIGHT", str(tmp_path / "m.pth"), "MODEL.WEIGHT_SURGERY", surgery)
    model = build_model(cfg)
    io.save(cfg.MODEL.WEIGHT, {"format": io.FORMAT, "model": model.state_dict()})
    load_initial_weights(cfg, model)
    return model


def test_a_surgery_of_the_users_own(tmp_path: Path, registered: Callable[..., None]) -> None:
    seen = {}

    def halve(tensors: dict[str, Tensor], num_classes: int, source: str) -> dict[str, Tensor]:
        seen.update(num_classes=num_classes, source=source)
        return {**tensors, "rpn.head.cls_logits.bias": tensors["rpn.head.cls_logits.bias"] / 2}

    registered("halve", halve)
    model = load_with("halve", tmp_path)
    stored = io.load(tmp_path / "m.pth")["model"]["rpn.head.cls_logits.bias"]
    assert torch.equal(model.rpn.head.cls_logits.bias, stored / 2)
    assert seen == {"num_classes": 2, "source": str(tmp_path / "m.pth")}


def test_a_surgery_that_fails_is_one_line(tmp_path: Path, registered: Callable[..., None]) -> None:
    registered("cut", lambda tensors: tensors["neck.weight"])
    registered("list", lambda tensors: list(tensors))
    with pytest.raises(InputError, match=r"^MODEL.WEIGHT_SURGERY: cut fails on .*m.pth: KeyError: 'neck.weight'$"):
        load_with("cut", tmp_path)
    with pytest.raises(InputError, match=r"^MODEL.WEIGHT_SURGERY: list must return tensors by name, not \['"):
        load_with("list", tmp_path)
    with pytest.raises(InputError, match=r"^MODEL.WEIGHT_SURGERY: nothing is registered as cutt; did you mean cut"):
        load_with("cutt", tmp_path)


@pytest.mark.parametrize(("stated", "told"), [(None, True), (stored_conventions(get_cfg()), False)])
def test_the_first_images_of_a_training_are_checked(
    tmp_path: Path, stated: dict[str, Any] | None, told: bool, warned: pytest.LogCaptureFixture
) -> None:
    """Images that are far too bright, unless the file says that this is how they are normalised."""
    cfg = small("MODEL.WEIGHT", str(tmp_path / "m.pth"), "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0)
    model = build_model(cfg)
    with torch.no_grad():
        model.backbone.body.stem.conv1.weight.abs_()  # all respond to brightness
    images = 60 * torch.randn(2, 3, 64, 64)
    model.backbone.body.stem.bn1.momentum = None
    model.train().backbone(images)
    io.save(cfg.MODEL.WEIGHT, {"format": io.FORMAT, "model": model.state_dict(), "conventions": stated or {}})
    load_initial_weights(cfg, model, checks_images=True)
    assert len(model._forward_pre_hooks) == 1
    model.eval()([*(images + 110)])
    model([*(images + 110)])
    assert not model._forward_pre_hooks
    assert sum("do not look like those" in line for line in warned.messages) == told
