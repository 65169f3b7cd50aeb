from __future__ import annotations

import pytest
import torch

from engine.structures import ImageBatch


def test_pads_below_and_to_the_right() -> None:
    images = [torch.full((3, 4, 6), 1.0), torch.full((3, 5, 3), 2.0)]
    batch = ImageBatch.from_list(images)
    assert batch.tensor.shape == (2, 3, 5, 6) and batch.sizes == [(4, 6), (5, 3)] and len(batch) == 2
    assert torch.equal(batch.tensor[0, :, :4, :], images[0]) and not batch.tensor[0, :, 4:].any()
    assert torch.equal(batch.tensor[1, :, :, :3], images[1]) and not batch.tensor[1, :, :, 3:].any()


def test_unpadded_gives_the_images_back() -> None:
    images = [torch.rand(3, 4, 6), torch.rand(3, 5, 3)]
    back = ImageBatch.from_list(images, 8).unpadded()
    assert len(back) == 2 and all(map(torch.equal, back, images))


@pytest.mark.parametrize(("divisor", "shape"), [(0, (5, 6)), (1, (5, 6)), (4, (8, 8)), (32, (32, 32))])
def test_divisor(divisor: int, shape: tuple[int, int]) -> None:
    batch = ImageBatch.from_list([torch.ones(3, 5, 6)], divisor)
    assert batch.tensor.shape[-2:] == shape and batch.sizes == [(5, 6)] and batch.tensor.sum() == 90


def test_images_of_one_size_are_stacked() -> None:
    images = [torch.rand(3, 8, 8) for _ in range(3)]
    batch = ImageBatch.from_list(images, 4)
    assert torch.equal(batch.tensor, torch.stack(images))
    batch.tensor.zero_()
    assert images[0].any(), "the batch is a copy"


@pytest.mark.parametrize("sizes", [[(4, 4), (4, 4)], [(4, 4), (5, 3)]])
def test_a_float_is_not_cut_to_a_byte(sizes: list[tuple[int, int]]) -> None:
    """Images as read, of files of 8 and of 16 bits."""
    images = [torch.full((3, *sizes[0]), 7, dtype=torch.uint8), torch.full((3, *sizes[1]), 7.25)]
    for order in (images, images[::-1]):
        batch = ImageBatch.from_list(order)
        assert batch.tensor.dtype == torch.float32 and set(batch.tensor.unique().tolist()) <= {0.0, 7.0, 7.25}
        assert 7.25 in batch.tensor
    assert ImageBatch.from_list(images[:1]).tensor.dtype == torch.uint8


def test_a_batch_is_where_its_images_are() -> None:
    images = [torch.empty(3, 4, 5, device="meta"), torch.empty(3, 6, 2, device="meta")]
    assert ImageBatch.from_list(images).tensor.device.type == "meta"
