"""Each body of the table in docs/models.md has the stated cost, trains two steps and is exported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from benchmarks.bodies import BODIES, cost_of, narrow_detector
from engine import build_model
from engine.structures import Targets

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ROW = re.compile(r"^\| `([^`]+)` \| [\d.]+ \| [\d.]+ \|", re.M)
ROWS = {match[1]: match[0] for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))}
QUICK = ("EfficientNet-Lite0", "MobileNetV3-Small", "timm/mobilenetv4_conv_small")


def cases(quick: tuple[str, ...]) -> list[ParameterSet]:
    """All bodies, those that are not quick for the nights."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.nightly) for name in BODIES]


def needs(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed (pip install timm)")


def test_the_page_has_every_body() -> None:
    assert list(ROWS) == list(BODIES)


@pytest.mark.parametrize("name", cases(("MobileNetV3-Small",)))
def test_cost(name: str) -> None:
    needs(name)
    assert ROWS[name] == cost_of(name).row(name)


@pytest.mark.parametrize("name", cases(QUICK))
def test_two_steps_and_export(name: str) -> None:
    needs(name)
    torch.manual_seed(0)
    cfg = narrow_detector(name)
    cfg.MODEL.RESNETS.NORM = "BN"  # random weights need statistics that move
    model = build_model(cfg).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
    targets = [
        Targets(boxes, torch.tensor([i % 3]), torch.zeros(1, dtype=torch.bool), image_id=i, size=size)
        for i, size in enumerate([(64, 64), (64, 96)])
    ]
    images = [torch.randn(3, *each.size) for each in targets]
    start = {key: value.clone() for key, value in model.backbone.body.named_parameters()}
    for _ in range(2):
        loss: Tensor = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    trained = [not torch.equal(value, start[key]) for key, value in model.backbone.body.named_parameters()]
    # Blocks of timm start with a last norm of 0, behind which the first step has no gradient.
    assert sum(trained) > 0.8 * len(trained)

    body = model.backbone.body.eval()
    image = torch.randn(1, 3, 64, 96)
    exported = torch.export.export(body, (image,)).module()
    with torch.no_grad():
        for ours, theirs in zip(body(image), exported(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
