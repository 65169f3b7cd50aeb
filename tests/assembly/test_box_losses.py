"""Box losses and norms of heads by key, in whole models of two classes of detectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.assembly.model import build_model
from engine.errors import InputError
from tests.configurations import batch_of_two, narrow

DENSE = {"ATSS": "BBOX_LOSS", "RETINANET": "BBOX_LOSS", "FCOS": "IOU_LOSS_TYPE"}
FILES = {
    "ATSS": "configs/quickstart/atss_R_18_fabric.yaml",
    "RETINANET": "configs/retinanet/retinanet_R_50_FPN_1x.yaml",
    "FCOS": "configs/fcos/fcos_R_50_FPN_1x.yaml",
    "CASCADE": "configs/quickstart/cascade_R_18_fabric.yaml",
}


def losses_of(file: str, **keys: str) -> dict[str, torch.Tensor]:
    """Losses of the narrow model with `keys` (double underscores for points), with gradients checked."""
    torch.manual_seed(0)
    cfg = narrow(Path(file), {name.replace("__", "."): value for name, value in keys.items()})
    model = build_model(cfg, ["a", "b", "c"]).train()
    torch.manual_seed(0)
    losses = model(*batch_of_two())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return {name: loss.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("stage", DENSE)
def test_dense_stages_take_box_losses_by_name(stage: str) -> None:
    key = f"MODEL__{stage}__{DENSE[stage]}"
    by_name = {name: losses_of(FILES[stage], **{key: name}) for name in ("giou", "diou", "ciou")}
    regressions = {name: losses["loss_reg"].item() for name, losses in by_name.items()}
    assert len(set(regressions.values())) == 3 and regressions["ciou"] > regressions["diou"]
    assert all(by_name[name]["loss_cls"] == by_name["giou"]["loss_cls"] for name in by_name)


@pytest.mark.parametrize("extractor, norm", [("FPN2MLPFeatureExtractor", "BN"), ("FPNXconv1fcFeatureExtractor", "BN")])
def test_cascades_take_box_losses_and_norms_by_name(extractor: str, norm: str) -> None:
    head = {"MODEL__ROI_BOX_HEAD__FEATURE_EXTRACTOR": extractor, "MODEL__ROI_BOX_HEAD__NORM": norm}
    plain = losses_of(FILES["CASCADE"], **head, MODEL__ROI_BOX_HEAD__BBOX_LOSS="diou")
    heavy = losses_of(
        FILES["CASCADE"],
        **head,
        MODEL__ROI_BOX_HEAD__BBOX_LOSS="diou",
        MODEL__ROI_BOX_HEAD__BBOX_LOSS_WEIGHT="10.0",
        MODEL__RPN__BBOX_LOSS="ciou",
    )
    boxes = [name for name in plain if name.startswith("loss_box_reg")]
    assert boxes and all(heavy[name] == pytest.approx(10 * plain[name].item(), rel=1e-5) for name in boxes)
    assert heavy["loss_rpn_box_reg"] != plain["loss_rpn_box_reg"]
    assert heavy["loss_objectness"] == plain["loss_objectness"]


def test_the_wide_head_of_the_configuration() -> None:
    cfg = narrow(Path("configs/cascade/cascade_4conv1fc_ciou_R_50_FPN_1x.yaml"))
    for head in build_model(cfg, ["a", "b", "c"]).roi_heads.box:
        layers = [type(layer) for layer in head.feature_extractor.xconvs]
        assert layers.count(nn.Conv2d) == 4 and len(layers) == 4 * 3  # a norm and a ReLU each
        assert head.box_loss_weight == 10


def test_a_misspelt_loss_is_told_with_the_right_one() -> None:
    with pytest.raises(InputError, match=r"MODEL.ATSS.BBOX_LOSS.*did you mean (ciou|giou|diou)"):
        narrow(Path(FILES["ATSS"]), {"MODEL.ATSS.BBOX_LOSS": "cioou"})
