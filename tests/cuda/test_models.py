"""Losses and gradients of every kind of detector are the same on the GPU as on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from engine.assembly.model import build_model
from engine.layers.deform_conv import DeformConv2d
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import Detections, ImageBatch, Targets
from tests.cuda.device import DEVICE, needs_device, relative_error
from tests.modeling.two_stage import small_config

pytestmark = needs_device

SIZE = (64, 96)
TOLERANCE = 1e-3  # relative; two orders of summation differ by about 1e-5 here
# An input of a ReLU or a sampling place within 1e-6 of a border falls on either side of it, and the gradient of a model
# this small then changes by a percent or two. So no batch may be wrong, and the best one must be exact.
ANY_BATCH, BEST_BATCH = 0.1, {"plain": 1e-3, "dcn v1": 5e-3, "dcn v2": 5e-3}
SEEDS = range(3)
KINDS = {
    "atss": "atss/atss_R_50_FPN_1x.yaml",
    "retinanet": "retinanet/retinanet_R_50_FPN_1x.yaml",
    "fcos": "fcos/fcos_R_50_FPN_1x.yaml",
    "faster": "faster/faster_R_50_FPN_1x.yaml",
    "cascade": "cascade/cascade_R_50_FPN_1x.yaml",
}
# All anchors and proposals are kept and learned from: a draw comes from the device's own generator, and where two
# scores are nearly equal, the last digit would decide which box is suppressed.
EVERY_BOX: dict[str, Any] = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 1_000_000,
    "MODEL.RPN.POSITIVE_FRACTION": 1.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1_000_000,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 1.0,
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 1_000_000,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 1_000_000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": 1_000_000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 1_000_000,
    "MODEL.RPN.POST_NMS_TOP_N_TEST": 1_000_000,
    "MODEL.RPN.NMS_THRESH": 1.0,
    "MODEL.ROI_HEADS.SCORE_THRESH": 0.0,
    "MODEL.ROI_HEADS.NMS": 1.0,
    "MODEL.RPN.ASPECT_RATIOS": (1.0,),
}
DEFORMABLE = {
    "plain": {},
    "dcn v1": {"MODEL.RESNETS.STAGE_WITH_DCN": (False, True, True, True)},
    "dcn v2": {
        "MODEL.RESNETS.STAGE_WITH_DCN": (False, True, True, True),
        "MODEL.RESNETS.WITH_MODULATED_DCN": True,
        "MODEL.ATSS.USE_DCN_IN_TOWER": True,
        "MODEL.FCOS.USE_DCN_IN_TOWER": True,
    },
}
CASES = [
    *[("atss", "plain"), ("atss", "dcn v2"), ("retinanet", "dcn v1"), ("fcos", "plain"), ("fcos", "dcn v2")],
    *[("faster", "plain"), ("faster", "dcn v1"), ("cascade", "plain"), ("cascade", "dcn v1"), ("cascade", "dcn v2")],
]


def model_of(kind: str, deformable: str) -> GeneralizedRCNN:
    """On the CPU, with offsets that reach between pixels."""
    settings: dict[str, Any] = {"MODEL.RESNETS.NORM": "GN"}
    for name in ("ATSS", "RETINANET", "FCOS"):
        settings[f"MODEL.{name}.NUM_CLASSES"] = 4
        settings[f"MODEL.{name}.PRIOR_PROB"], settings[f"MODEL.{name}.INFERENCE_TH"] = 0.2, 0.01
        settings[f"MODEL.{name}.PRE_NMS_TOP_N"] = 1_000_000
    cfg = small_config(KINDS[kind], 3, **{**EVERY_BOX, **settings, **DEFORMABLE[deformable]})
    cfg.freeze()
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            torch.nn.init.normal_(module.offset.weight, std=0.05)
            torch.nn.init.uniform_(module.offset.bias, -0.4, 0.4)
    return model


def images(seed: int = 0) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    return ImageBatch(torch.randn(2, 3, *SIZE, generator=generator), [SIZE, (50, 80)])


def targets() -> list[Targets]:
    """An ordinary box, a flat one, a crowd; an image without any.

    No centre is equally far from two cells: which of them ATSS takes is up to the device (`torch.topk`).
    """
    boxes = torch.tensor([[8.3, 6.2, 40.9, 45.7], [5.1, 30.3, 80.6, 36.9], [50.2, 10.4, 90.1, 60.3]])
    flags = torch.tensor([False, False, True])
    first = Targets(boxes, torch.tensor([0, 2, 1]), flags, 0, SIZE)
    return [first, Targets(boxes[:0], torch.zeros(0, dtype=torch.int64), flags[:0], 1, (50, 80))]


def step(
    model: GeneralizedRCNN, device: torch.device, seed: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses and gradients by name, on the CPU, of a copy of the model."""
    model = copy.deepcopy(model).to(device).train()
    losses = model(images(seed).to(device), [each.to(device) for each in targets()])
    sum(losses.values()).backward()
    gradients = {name: each.grad.cpu() for name, each in model.named_parameters() if each.grad is not None}
    return {name: value.detach().cpu() for name, value in losses.items()}, gradients


def joined(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten() for each in gradients.values()])


@pytest.mark.parametrize(("kind", "deformable"), CASES)
def test_losses_and_gradients(kind: str, deformable: str) -> None:
    model = model_of(kind, deformable)
    assert any(isinstance(each, DeformConv2d) for each in model.modules()) == (deformable != "plain")
    errors = []
    for seed in SEEDS:
        losses, gradients = step(model, DEVICE, seed)
        expected, expected_gradients = step(model, torch.device("cpu"), seed)
        assert losses.keys() == expected.keys() and gradients.keys() == expected_gradients.keys()
        for name, value in expected.items():
            assert torch.isfinite(value) and relative_error(losses[name], value, floor=1e-3) < TOLERANCE, name
        floor = 0.01 * float(joined(expected_gradients).norm())
        for name, gradient in expected_gradients.items():
            assert relative_error(gradients[name], gradient, floor) < ANY_BATCH, name
        errors.append(relative_error(joined(gradients), joined(expected_gradients)))
    assert min(errors) < BEST_BATCH[deformable], errors


@pytest.mark.parametrize(("kind", "deformable"), CASES)
def test_candidates(kind: str, deformable: str) -> None:
    """The scored boxes of each image, in any order; suppression is tested by itself."""
    found = []
    model = model_of(kind, deformable).eval()
    for device in (DEVICE, torch.device("cpu")):
        with torch.inference_mode():
            found.append([each.to("cpu") for each in copy.deepcopy(model).to(device).candidates(images().to(device))])
    for ours, theirs in zip(*found, strict=True):
        assert len(theirs) > 0 and abs(len(ours) - len(theirs)) <= 1 + len(theirs) // 100  # scores at a limit
        assert share_found(ours, theirs) > 0.98 and share_found(theirs, ours) > 0.98


def share_found(ours: Detections, theirs: Detections) -> float:
    """The part of `theirs` that has a twin in `ours`: same class, sides within 0.05 pixels, score within 1e-3."""
    box_distance = torch.cdist(theirs.boxes, ours.boxes, p=torch.inf)
    score_distance = (theirs.scores[:, None] - ours.scores[None]).abs()
    is_twin = (box_distance < 0.05) & (score_distance < 1e-3) & (theirs.labels[:, None] == ours.labels[None])
    return float(is_twin.any(dim=1).double().mean())


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 1)])
def test_deformable_convolution(modulated: bool, stride: int, dilation: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(
        8, 16, stride=stride, dilation=dilation, groups=groups, deformable_groups=2, modulated=modulated, bias=True
    )
    torch.nn.init.normal_(layer.offset.weight, std=0.2)
    image = torch.randn(2, 8, 13, 17)
    outcomes = []
    for device in (DEVICE, torch.device("cpu")):
        copied, x = copy.deepcopy(layer).to(device), image.to(device).requires_grad_()
        out = copied(x)
        out.square().sum().backward()
        outcomes.append([out, x.grad, *(each.grad for each in copied.parameters())])
    for ours, theirs in zip(*outcomes, strict=True):
        assert relative_error(ours, theirs) < 1e-4
