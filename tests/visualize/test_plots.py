from __future__ import annotations

import numpy as np
import pytest

from engine.visualize.plots import SETS, anchors_plot

PANEL = (672, 1160)


@pytest.mark.parametrize("ratio", [1 / 200, 0.5, 200.0])
def test_anchors_of_any_ratio_stand_in_the_panel(ratio: float) -> None:
    shapes = np.array([[40.0, 40.0], [60.0, 30.0]])
    image = anchors_plot(shapes, {"configured": np.array([[64 / ratio**0.5, 64 * ratio**0.5]])})
    assert image.shape == (640, 1200, 3) and image.dtype == np.uint8
    _, columns = (image == np.array(SETS[0][::-1])).all(-1)[330:600].nonzero()  # the lower panel
    columns = columns[columns > 630]  # right of the other panel
    assert len(columns) and PANEL[0] - 4 <= columns.min() and columns.max() <= PANEL[1] + 4
    middle = (PANEL[0] + PANEL[1]) / 2
    assert (columns.mean() < middle) == (ratio < 1)
