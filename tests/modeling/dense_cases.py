"""What the tests of recorded dense heads share: their batches, gradients, and parameters that they lack."""

from __future__ import annotations

from typing import Any

import torch

from engine.checkpoint.foreign import mmdetection
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import ImageBatch, Targets
from tests.modeling.test_golden_mmdetection import Case
from tests.modeling.two_stage import targets_of

SETTINGS = {"MODEL.RETINANET.USE_C5": False, "TEST.DETECTIONS_PER_IMG": 300}
CASES = ("train", "train_batch", "train_empty", "train_batch_one_empty")


def batch_of(case: Case, name: str) -> tuple[ImageBatch, list[Targets]]:
    """The images of a recorded training case with their boxes."""
    data = case.data
    padded = data["padded_case"]
    first, second = (data["image"], (256, 320)), (padded["image"], tuple(padded["img_shape"]))
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    boxes = {1: (data["gt_bboxes"], data["gt_labels"]), 2: (padded["gt_bboxes"], padded["gt_labels"]), 0: none}
    images, given = {
        "train": ([first], [1]),
        "train_batch": ([first, second], [1, 2]),
        "train_empty": ([second], [0]),
        "train_batch_one_empty": ([first, second], [1, 0]),
    }[name]
    targets = [targets_of(*boxes[i], size) for (_, size), i in zip(images, given, strict=True)]
    return ImageBatch(torch.cat([image for image, _ in images]), [size for _, size in images]), targets


def recorded(case: Case, name: str) -> dict[str, Any]:
    """Losses and gradients of a training case."""
    return case.data if name == "train" else case.data[name]


def check_gradients_of_head(case: Case, name: str, losses: dict[str, torch.Tensor]) -> None:
    """Gradients of the recorded parameters of the head are theirs, to 1e-3 of the largest; zero ones are zero."""
    case.model.zero_grad()
    sum(losses.values()).backward()
    theirs = mmdetection.translate(recorded(case, name)["grads"])
    ours = {key: parameter.grad for key, parameter in case.model.rpn.named_parameters(prefix="rpn")}
    names = [key for key in theirs if key in ours and not is_bias_before_norm(key)]
    assert len(names) >= 4
    for key in names:
        scale = theirs[key].abs().max().clamp(min=1e-12)
        torch.testing.assert_close(ours[key] / scale, theirs[key] / scale, rtol=0, atol=1e-3, msg=key)


def freeze_biases_before_norms(model: GeneralizedRCNN) -> None:
    """The convolutions of mmdetection before a group norm have no bias."""
    for name, parameter in model.named_parameters():
        if is_bias_before_norm(name):
            parameter.requires_grad_(False)


def is_bias_before_norm(name: str) -> bool:
    return "_tower." in name and name.endswith(".bias") and int(name.split(".")[-2]) % 3 == 0
