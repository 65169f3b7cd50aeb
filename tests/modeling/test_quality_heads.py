"""What GFL and VarifocalNet do beyond the recorded figures: any number of classes, nothing to find, odd sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.assembly.model import build_model
from engine.config import CfgNode
from engine.errors import InputError
from engine.modeling.box_coding import DistributionCoder
from engine.modeling.dense.towers import Towers
from engine.modeling.dense.vfnet import VFNetHead, star_offsets
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import ImageBatch, Targets
from tests.modeling.two_stage import small_config

CONFIGS = {"GFL": "gfl/gfl_R_50_FPN_1x.yaml", "VFNET": "vfnet/vfnet_R_50_FPN_1x.yaml"}
SMALL = {"MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 32, "MODEL.DENSE.ARGS": "{num_convs: 1, score_thresh: 0.0}"}


def config(name: str, num_classes: int = 3, **settings: object) -> CfgNode:
    return small_config(CONFIGS[name], num_classes, **{**SMALL, **settings})


def model_of(name: str, num_classes: int = 3) -> GeneralizedRCNN:
    torch.manual_seed(0)
    return build_model(config(name, num_classes))


def targets(boxes: list[list[float]], size: tuple[int, int], ignore: bool = False) -> Targets:
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Targets(rows, torch.zeros(len(rows), dtype=torch.int64), torch.full((len(rows),), ignore), 0, size)


@pytest.mark.parametrize("num_classes", [1, 80])
@pytest.mark.parametrize("name", CONFIGS)
def test_any_number_of_classes_on_a_tiny_image(name: str, num_classes: int) -> None:
    model = model_of(name, num_classes)
    batch = ImageBatch(torch.randn(1, 3, 64, 64), [(64, 50)])
    losses = model.train()(batch, [targets([[4, 4, 30, 40]], (64, 50))])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    with torch.no_grad():
        (found,) = model.eval()(batch)
    assert len(found) and int(found.labels.max()) < num_classes
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()  # none without area
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([50, 64, 50, 64])).all()


@pytest.mark.parametrize("is_crowd", [False, True], ids=["no boxes", "crowds only"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_with_nothing_to_find(name: str, is_crowd: bool) -> None:
    model = model_of(name).train()
    each = targets([[4, 4, 60, 60]] if is_crowd else [], (64, 64), ignore=True)
    losses = model(ImageBatch(torch.randn(2, 3, 64, 64), [(64, 64)] * 2), [each, each])
    sum(losses.values()).backward()
    assert losses.pop("loss_cls") > 0 and all(loss == 0 for loss in losses.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.rpn.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16(name: str) -> None:
    """Boxes and losses are computed in float32: they differ by the rounding of features only."""
    model = model_of(name).train()
    batch, found = ImageBatch(torch.randn(1, 3, 64, 96), [(64, 96)]), {}
    for is_on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on):
            found[is_on] = model(batch, [targets([[4, 4, 60, 40], [30, 30, 38, 50]], (64, 96))])
    for key, loss in found[True].items():
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(found[False][key].item(), rel=0.05)


@pytest.mark.parametrize("logit", [torch.nan, 200.0])
def test_a_first_box_that_is_no_number_ends_no_process(logit: float) -> None:
    head = VFNetHead(4, 3, num_levels=1, num_convs=0, towers=Towers(norm="BN")).eval()
    torch.nn.init.constant_(head.first_pred.bias, logit)
    outputs = head([torch.ones(1, 4, 100, 160)])
    assert not outputs.codes.isfinite().any()  # the loop reports a loss that is not a number
    assert outputs.logits.isnan().all() == (logit != logit)


def test_a_box_beyond_the_largest_distance() -> None:
    """Two strides of 8 pixels at most: of a box that ends 40 pixels away the nearest that can be said is learnt."""
    settings = {"MODEL.DENSE.ARGS": "{num_convs: 1, reg_max: 2}"}
    model = build_model(config("GFL", **settings)).train()
    losses = model(ImageBatch(torch.randn(1, 3, 256, 256), [(256, 256)]), [targets([[0, 0, 256, 256]], (256, 256))])
    assert all(loss.isfinite() for loss in losses.values())
    coder = DistributionCoder(2, unit=1.0)
    anchor, box = torch.tensor([[-4.0, -4, 4, 4]]), torch.tensor([[-8.0, -12, 40, 16]])
    decoded = coder.decode(coder.encode(box, anchor), anchor)
    assert decoded.tolist() == [[-8, -12, 16, 16]]


@given(st.lists(st.floats(0, 16), min_size=4, max_size=4))
def test_decoding_undoes_encoding(distances: list[float]) -> None:
    coder, anchor = DistributionCoder(16, unit=8.0), torch.tensor([[-24.0, -16, 40, 48]])  # 8 pixels per unit
    left, top, right, bottom = (8 * distance for distance in distances)
    box = torch.tensor([[8 - left, 16 - top, 8 + right, 16 + bottom]])
    torch.testing.assert_close(coder.decode(coder.encode(box, anchor), anchor), box, rtol=1e-5, atol=1e-3)


def test_a_star_of_a_box_of_one_cell_is_a_plain_convolution() -> None:
    assert torch.equal(star_offsets(torch.ones(1, 4, 2, 3)), torch.zeros(1, 18, 2, 3))


def test_a_star_by_hand() -> None:
    """Two cells to the left, three up, four to the right, five down: (dy, dx) of nine taps."""
    offsets = star_offsets(torch.tensor([2.0, 3, 4, 5]).reshape(1, 4, 1, 1)).reshape(9, 2)
    ys, xs = [-2, 0, 4], [-1, 0, 3]
    assert offsets.tolist() == [[y, x] for y in ys for x in xs]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{topk: 0}", "topk must be a whole number of at least 1, got 0"),
        ("{num_convs: 1.5}", "num_convs must be a whole number, got 1.5"),
        ("{nms_thresh: 2}", "nms_thresh must be at least 0 and at most 1, got 2"),
        ("{anchor_size: 0}", "anchor_size must be above 0, got 0"),
        ("{prior: high}", "prior must be a number, got 'high'"),
        ("{gama: 1}", "takes no such argument; did you mean gamma?"),
    ],
)
def test_bad_arguments_get_one_line(name: str, arguments: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        build_model(config(name, **{"MODEL.DENSE.ARGS": arguments}))
    assert str(error.value).startswith("MODEL.DENSE.ARGS") and str(error.value).endswith(told)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_proposes_to_a_second_stage(name: str) -> None:
    cfg = small_config(
        "faster/faster_R_50_FPN_1x.yaml",
        3,
        **{
            "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 32,
            "MODEL.DENSE.NAME": name,
            "MODEL.DENSE.ARGS": "{num_convs: 1}",
        },
    )
    torch.manual_seed(0)
    model = build_model(cfg)
    batch = ImageBatch(torch.randn(1, 3, 64, 64), [(64, 64)])
    losses = model.train()(batch, [targets([[4, 4, 30, 40]], (64, 64))])
    assert {"loss_cls", "loss_reg", "loss_classifier", "loss_box_reg"} <= losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        (found,) = model.eval()(batch)
    assert found.boxes.isfinite().all()
