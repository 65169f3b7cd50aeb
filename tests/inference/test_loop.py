"""Detection over a data set, its losses, and what both leave as they found it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.assembly.model import build_model
from engine.data.batch import Batch
from engine.data.transforms import random_state
from engine.inference.loop import detect, evaluation_mode, image_losses, mean_losses
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import ImageBatch, Targets
from tests.modeling.two_stage import freeze_statistics, small_config

CPU = torch.device("cpu")
ATSS = "atss/atss_R_50_FPN_1x.yaml"
RETINANET = "retinanet/retinanet_R_50_FPN_1x.yaml"
FASTER = "faster/faster_R_50_FPN_1x.yaml"
CASCADE = "cascade/cascade_R_50_FPN_1x.yaml"


@cache
def _model(path: str) -> GeneralizedRCNN:
    """With batch norm, so that a pass in training mode would leave traces."""
    torch.manual_seed(5)
    moving = {"MODEL.RETINANET.LOSS_NORMALIZER": "moving_average"} if path == RETINANET else {}
    cfg = small_config(path, **{"MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 20, "MODEL.RETINANET.NUM_CLASSES": 6}, **moving)
    return build_model(cfg, [f"c{k}" for k in range(5)])


def _images(num: int, size: tuple[int, int] = (64, 96)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, size[0] - 8 * i, size[1], generator=generator) * 40 for i in range(num)]


def _targets(images: list[Tensor], num_boxes: int = 2) -> list[Targets]:
    boxes = torch.tensor([[8.0, 8, 40, 30], [50.0, 10, 60, 40]])[:num_boxes]
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    labels, ignore = torch.tensor([1, 3])[:num_boxes], torch.zeros(num_boxes, dtype=torch.bool)
    return [Targets(boxes, labels, ignore, 10 + i, size, size) for i, size in enumerate(sizes)]


def _batch(num: int, num_boxes: int = 2) -> Batch:
    images = _images(num)
    return Batch(ImageBatch.from_list(images, 32), _targets(images, num_boxes))


@pytest.mark.parametrize("path", [ATSS, RETINANET, FASTER, CASCADE])
def test_losses_are_those_of_the_image_alone_and_change_nothing(path: str) -> None:
    model = _model(path)
    freeze_statistics(model)  # training mode, as a training finds it, but for the norms
    image, target = _images(3)[1], _targets(_images(3))[1]
    normalizer = getattr(model.rpn, "normalizer", nn.Identity()).eval()
    with torch.no_grad(), random_state(0):
        expected = model([image], [target])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()

    found = detect(model, [_batch(3)], CPU, with_losses=True)

    assert found.losses.keys() == found.detections.keys() == {10, 11, 12}
    assert found.losses[11] == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5)
    assert [module.training for module in model.modules()] == modes and not normalizer.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("path", [ATSS, FASTER])
def test_losses_do_not_depend_on_the_batch(path: str) -> None:
    model, whole = _model(path).eval(), _batch(3)
    together = image_losses(model, whole)
    for i, target in enumerate(whole.targets):
        alone = Batch(ImageBatch.from_list(_images(3)[i : i + 1]), [target])
        assert image_losses(model, alone)[target.image_id] == together[target.image_id]


def test_losses_of_an_image_without_boxes_are_finite() -> None:
    (losses,) = image_losses(_model(ATSS).eval(), _batch(1, num_boxes=0)).values()
    assert losses["loss_reg"] == 0 and 0 < losses["loss_cls"] < 1e4


def test_anchors_kept_from_a_detection_can_be_trained_with() -> None:
    model = _model(RETINANET)
    detect(model, [_batch(1)], CPU)
    _, anchors = model.rpn(model.backbone(_images(1)[0][None]), _images(1)[0].shape[-2:])
    deltas = torch.ones_like(anchors.boxes, requires_grad=True)
    (deltas * anchors.boxes).sum().backward()  # torch refuses what comes out of its inference mode
    assert torch.equal(deltas.grad, anchors.boxes)


class Failing(nn.Module):
    """A part that somebody has put into evaluation mode, and a model that fails on the second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(3)
        self.num_calls = 0
        self.train()
        self.frozen.eval()

    def detect(self, images: ImageBatch) -> list:
        assert not self.training and not self.frozen.training
        self.num_calls += 1
        raise RuntimeError("out of memory")


def test_modes_come_back_when_the_model_fails() -> None:
    model = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        detect(model, [_batch(1)], CPU)
    assert model.num_calls == 1 and model.training and not model.frozen.training


def test_parts_keep_their_own_modes() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    model[0].eval()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


losses = st.dictionaries(
    st.integers(), st.fixed_dictionaries({"a": st.floats(0, 1e6), "b": st.floats(0, 1e-3)}), min_size=1
)


@given(losses)
def test_mean_losses(rows: dict) -> None:
    means = mean_losses(rows)
    assert means["a"] == pytest.approx(sum(row["a"] for row in rows.values()) / len(rows))
    assert means["loss"] == pytest.approx(means["a"] + means["b"])
    assert mean_losses(dict(reversed(rows.items()))) == means


def test_no_images_have_no_losses() -> None:
    assert mean_losses({}) == {}
