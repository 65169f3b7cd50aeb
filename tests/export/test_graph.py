"""The exported network in torch: the same detections as the model it is made from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.assembly.detector import build_normalize
from engine.assembly.model import build_model
from engine.export.graph import DetectionGraph
from tests.configurations import FOLDER, narrow


def noise(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    """Images (H_i, W_i, 3) of random bytes."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]


def padded(images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs of the network: images in one tensor, with random bytes beyond them, and their sizes."""
    sizes = torch.tensor([image.shape[:2] for image in images])
    batch = noise(tuple(sizes.amax(0).tolist()))[0].repeat(len(images), 1, 1, 1)
    for slot, image in zip(batch, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    return batch, sizes


def trained_like(path: Path, **changed: str) -> tuple[DetectionGraph, list]:
    """The graph of a narrow model that finds many boxes, and how its images are normalised."""
    cfg = narrow(path, changed)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    logits = model.rpn.head.cls_logits
    torch.nn.init.normal_(logits.weight, std=0.3)
    torch.nn.init.constant_(logits.bias, -1.0)
    normalize = build_normalize(cfg)
    return DetectionGraph(model, normalize).eval(), normalize


@pytest.mark.parametrize("name", ["bccd/atss_R_18_bccd.yaml"])
@torch.no_grad()
def test_the_graph_finds_what_the_model_finds(name: str) -> None:
    graph, normalize = trained_like(FOLDER / name)
    images = noise((70, 90), (64, 33))
    expected = graph.model.detect([normalize.pixels(image.permute(2, 0, 1)) for image in images])
    boxes, scores, labels, counts = graph(*padded(images))
    assert counts.tolist() == [len(each) for each in expected] and counts.min() > 0
    for i, each in enumerate(expected):
        assert torch.equal(boxes[i, : counts[i]], each.boxes)
        assert torch.equal(scores[i, : counts[i]], each.scores)
        assert torch.equal(labels[i, : counts[i]], each.labels)
