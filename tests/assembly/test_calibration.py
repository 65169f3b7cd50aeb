from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.assembly.calibration import calibration_samples
from engine.config import get_cfg
from engine.errors import InputError
from engine.runtime.card import FixedShape, ImageRule, ModelCard, TileRule

CARD = ModelCard(("hole",), {}, 0.3, ImageRule(min_size=32, max_size=64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of 48 x 64, in two folders; the blue of each is its number."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        path = root / ("left" if number % 2 else "right") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((48, 64, 3), (number, 100, 200), np.uint8))
    return root


def blues(samples: list) -> list[int]:
    return [int(sample["images"][0, 0, 0, 0]) for sample in samples]


def test_images_are_scaled_and_chosen_alike_each_time(folder: Path) -> None:
    samples = calibration_samples(get_cfg(), CARD, folder, count=11)
    assert [sample["images"].shape for sample in samples] == [(1, 32, 42, 3)] * 11
    assert [sample["sizes"].tolist() for sample in samples] == [[[32, 42]]] * 11
    assert samples[0]["images"].dtype == np.uint8
    assert len(set(blues(samples))) == 11
    assert blues(samples) == blues(calibration_samples(get_cfg(), CARD, folder, count=11))


def test_they_fill_what_the_network_has_fixed(folder: Path) -> None:
    card = replace(CARD, shape=FixedShape(batch_size=2, input_size=(40, 50)))
    sample = calibration_samples(get_cfg(), card, folder)[0]
    assert sample["images"].shape == (2, 40, 50, 3)
    assert sample["sizes"].tolist() == [[32, 42], [32, 42]]
    assert not sample["images"][0, 32:].any()


def test_tiles_are_what_a_network_of_tiles_sees(folder: Path) -> None:
    card = replace(CARD, tiles=TileRule(32, 8, False, (0.0, 0.0, 0.0), "nms", {"iou_thresh": 0.5}))
    samples = calibration_samples(get_cfg(), card, folder)
    assert {sample["images"].shape for sample in samples} == {(1, 32, 32, 3)}
    assert max(np.bincount(blues(samples))) == 4  # of the six of each image


def test_too_few_images_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 10 real images, and .*left has 6: name a folder of more"):
        calibration_samples(get_cfg(), CARD, folder / "left")
    with pytest.raises(InputError, match="holds no images"):
        calibration_samples(get_cfg(), CARD, tmp_path)
    with pytest.raises(InputError, match="name a folder with --images"):
        calibration_samples(get_cfg(), CARD)
    too_large = replace(CARD, shape=FixedShape(input_size=(16, 16)))
    with pytest.raises(InputError, match=r"has 0: .*the first that cannot be used: the network takes up to 16 x 16"):
        calibration_samples(get_cfg(), too_large, folder)
