"""Pixels of any depth and number of channels, made pictures."""

from __future__ import annotations

import numpy as np
import pytest

from engine.visualize.pixels import as_picture


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_any_number_of_channels(dtype: type, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(40, 90, (6, 8, channels)).astype(dtype)
    pixels[0, 0], pixels[0, 1] = 40, 89
    picture = as_picture(pixels)
    assert picture.dtype == np.uint8 and picture.shape == (6, 8, 3)
    if channels in (3, 4):
        assert (picture == pixels[..., :3]).all()
    elif channels == 1:
        assert (picture == pixels).all()
    else:  # no colours: each from its lowest to its highest value
        assert picture[0, 0].tolist() == [0, 0, 0] and picture[0, 1].tolist() == [255, 255, 255]
        assert channels == 9 or (picture[..., 0] == picture[..., 2]).all()


def test_flat_channels_and_what_is_no_number() -> None:
    assert not as_picture(np.full((2, 2, 5), 7, np.uint8)).any()
    pixels = np.array([[[np.nan, np.inf, -3.0]]], np.float32)
    assert as_picture(pixels).tolist() == [[[0, 255, 0]]]
    for wrong in (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3), np.uint16), np.zeros((0, 2, 3), np.uint8)):
        with pytest.raises(ValueError, match="need BGR pixels"):
            as_picture(wrong)
