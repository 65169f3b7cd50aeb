"""Our Cascade and Faster R-CNN compute what detectron2 computes (see the README of the golden figures)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint.foreign import detectron2
from engine.modeling.two_stage.roi_pooling import assign_levels
from engine.structures import ImageBatch
from tests.modeling.two_stage import assert_same_set, converted_model, small_config, targets_of

PIXEL_MEAN = (103.53, 116.28, 123.675)
SETTINGS = {
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 2,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 70,
    "MODEL.RPN.POST_NMS_TOP_N_TEST": 0,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 200,
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 70,
    "MODEL.RPN.POST_NMS_TOP_N_TRAIN": 0,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": 200,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 100_000,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1024,
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 50,
}


class Case:
    """One recorded model, and ours with its weights. `expected` holds what this model alone recorded."""

    def __init__(self, folder: Path, name: str) -> None:
        self.data = torch.load(folder / "golden_cascade.pt", weights_only=True)
        self.expected: dict[str, Any] = self.data
        state = self.data["state_dict"]
        if name == "faster":  # the same body and region proposal network
            self.expected = torch.load(folder / "golden_more.pt", weights_only=True)["faster_rcnn"]
            shared = {key: value for key, value in state.items() if not key.startswith("roi_heads")}
            state = {**shared, **self.expected["state_dict"]}
        self.model = converted_model(small_config(f"{name}/{name}_R_50_FPN_1x.yaml", **SETTINGS), state).eval()
        mean = torch.tensor(PIXEL_MEAN)[:, None, None]
        self.batch = ImageBatch.from_list([image.float() - mean for image in self.data["images"]], 32)
        self.targets = [
            targets_of(gt["boxes"], gt["classes"], size, i)
            for i, (gt, size) in enumerate(zip(self.data["gt"], self.batch.sizes, strict=True))
        ]
        with torch.no_grad():
            self.features = self.model.backbone(self.batch.tensor)


@pytest.fixture(scope="module")
def cascade(golden_dir: Path) -> Case:
    return Case(golden_dir / "detectron2", "cascade")


@pytest.fixture(scope="module")
def faster(golden_dir: Path) -> Case:
    return Case(golden_dir / "detectron2", "faster")


@torch.no_grad()
def test_features_anchors_and_proposals(cascade: Case) -> None:
    data, rpn = cascade.data, cascade.model.rpn
    assert list(cascade.batch.tensor.shape) == data["padded_input_shape"]
    for ours, theirs in zip(cascade.features, data["fpn_image0"].values(), strict=True):
        torch.testing.assert_close(ours[0, : len(theirs)], theirs, rtol=1e-4, atol=1e-4)
    anchors = rpn.anchor_generator(cascade.features)
    assert anchors.num_per_level == data["num_anchors"]
    for ours, theirs in zip(anchors.boxes_per_level, data["anchors_first10_last10"], strict=True):
        torch.testing.assert_close(torch.cat([ours[:10], ours[-10:]]), theirs, rtol=0, atol=1e-3)
    logits, _ = rpn.head(cascade.features)
    theirs = torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in data["rpn_logits"]], dim=1)
    torch.testing.assert_close(logits, theirs, rtol=0, atol=1e-4)
    outputs = rpn.head(cascade.features)
    proposals = rpn.eval().propose(outputs, anchors, cascade.batch.sizes)
    for ours, theirs in zip(proposals, data["proposals"], strict=True):
        torch.testing.assert_close(ours.boxes, theirs["boxes"], rtol=0, atol=1e-2)
        torch.testing.assert_close(ours.scores, theirs["logits"].sigmoid(), rtol=0, atol=1e-4)


@torch.no_grad()
def test_stages(cascade: Case) -> None:
    data, heads = cascade.data, cascade.model.roi_heads
    all_logits = []
    for head, stage in zip(heads.box, data["stages"], strict=True):
        assert torch.equal(assign_levels(torch.cat(stage["proposals"]), heads.pooler.strides), stage["levels"])
        pooled = heads.pooler(cascade.features, stage["proposals"])
        torch.testing.assert_close(pooled[::40], stage["pooled_every40"], rtol=1e-4, atol=1e-4)
        logits, deltas = head(pooled)
        torch.testing.assert_close(logits, stage["cls_logits"], rtol=0, atol=1e-3)
        torch.testing.assert_close(deltas[:, 0], stage["deltas"], rtol=0, atol=1e-3)
        refined = head.decode(deltas, torch.cat(stage["proposals"]), torch.zeros(len(deltas), dtype=torch.int64))
        torch.testing.assert_close(refined, torch.cat(stage["refined_boxes_unclipped"]), rtol=0, atol=0.05)
        all_logits.append(logits)
    torch.testing.assert_close(heads.score_mean(all_logits), torch.cat(data["avg_scores"]), rtol=0, atol=1e-4)


@torch.no_grad()
def test_cascade_detections(cascade: Case) -> None:
    data = cascade.data
    found = cascade.model.eval()(cascade.batch)
    for ours, theirs in zip(found, data["final_network_scale"], strict=True):
        assert_same_set(ours, theirs["boxes"], theirs["scores"], theirs["classes"], 0.05, 1e-3)
    for ours, size, theirs in zip(found, data["output_size_hw"], data["final"], strict=True):
        assert_same_set(ours.resize(tuple(size)), theirs["boxes"], theirs["scores"], theirs["classes"], 0.05, 1e-3)
    alone = ImageBatch.from_list([cascade.batch.tensor[0, :, :450, :620]], 32)
    (ours,), theirs = cascade.model(alone), data["final_image0_alone"]
    assert_same_set(ours, theirs["boxes"], theirs["scores"], theirs["classes"], 0.05, 1e-3)


@torch.no_grad()
def test_faster_predictions_and_detections(faster: Case) -> None:
    heads, expected = faster.model.roi_heads, faster.expected
    logits, deltas = heads.box(heads.pooler(faster.features, expected["proposals"]))
    torch.testing.assert_close(logits, expected["cls_logits"], rtol=0, atol=1e-3)
    torch.testing.assert_close(deltas.flatten(1), expected["deltas"], rtol=0, atol=1e-3)
    sizes = faster.data["output_size_hw"]
    for ours, size, theirs in zip(faster.model.eval()(faster.batch), sizes, expected["final"], strict=True):
        assert_same_set(ours.resize(tuple(size)), theirs["boxes"], theirs["scores"], theirs["classes"], 0.05, 1e-3)


@pytest.mark.parametrize("name", ["cascade", "faster"])
def test_losses_and_gradients(request: pytest.FixtureRequest, name: str) -> None:
    case: Case = request.getfixturevalue(name)
    model = case.model.train()
    model.zero_grad()
    losses = model(case.batch, case.targets)
    translated = {"loss_rpn_cls": "loss_objectness", "loss_rpn_loc": "loss_rpn_box_reg"}
    expected = {
        translated.get(key, key.replace("loss_cls", "loss_classifier")): value
        for key, value in case.expected["train_losses"].items()
    }
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-6, msg=key)
    sum(losses.values()).backward()
    ours = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    norms = detectron2.translate(case.expected["train_grad_norms"])
    assert len(norms) > 40 and norms.keys() <= ours.keys()
    for key, norm in norms.items():
        torch.testing.assert_close(ours[key].norm(), norm, rtol=2e-3, atol=1e-7, msg=key)
    for key, gradient in detectron2.translate(case.expected.get("train_grads", {})).items():
        scale = gradient.abs().max()
        torch.testing.assert_close(ours[key] / scale, gradient / scale, rtol=0, atol=2e-3, msg=key)
