"""`engine.assembly.cost`."""

from __future__ import annotations

import pytest

from engine.assembly.cost import estimate_cost
from engine.assembly.model import build_model
from engine.config import load_config

QUICKSTART = "configs/quickstart/atss_R_18_fabric.yaml"


@pytest.mark.parametrize("channels", [1, 4])
def test_the_cost_of_a_model_for_images_of_any_number_of_channels(channels: int) -> None:
    values = "(" + "100.0," * channels + ")"
    keys = ["INPUT.CHANNELS", str(channels), "INPUT.PIXEL_MEAN", values, "INPUT.PIXEL_STD", values]
    cfg = load_config(QUICKSTART, [*keys, "MODEL.WEIGHT", "", "MODEL.ATSS.NUM_CLASSES", "3"])
    cost = estimate_cost(cfg, build_model(cfg, ["hole", "dent"]), num_images=100)
    assert cost.memory > 0 and cost.seconds > 0
