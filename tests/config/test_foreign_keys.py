from __future__ import annotations

import pytest

from engine.config import foreign_keys, load_config
from engine.config.tree import leaves


@pytest.mark.parametrize(
    "text",
    [
        "  MASK_ON: False\n  ROI_MASK_HEAD:\n    RESOLUTION: 28\n    POOLER_SCALES: [0.25]\n",
        "  KEYPOINT_ON: off\n  ROI_KEYPOINT_HEAD:\n    NUM_CLASSES: 5\n",
        "  FBNET:\n    ARCH: x\n",
        "PATHS_CATALOG: ''\n",
        "PATHS_CATALOG: /home/me/ATSS/atss_core/config/paths_catalog.py\n",
        "TEST:\n  EXPECTED_RESULTS: []\n  EXPECTED_RESULTS_SIGMA_TOL: 3\n",
    ],
)
def test_harmless_keys_are_dropped(write_config, text):
    cfg = load_config(write_config(text), ["MODEL.MASK_ON", "False"])
    assert not [key for key, _ in leaves(cfg) if foreign_keys.find(key)]


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "  MASK_ON: True\n",
            "6: MODEL.MASK_ON is not supported: this engine predicts boxes, not masks; remove it",
        ),
        (
            "PATHS_CATALOG: my/catalog.py\n",
            "6: PATHS_CATALOG is not supported: data sets are declared in DATASETS.CATALOG, "
            "not in a Python file; remove it",
        ),
        (
            "TEST:\n  EXPECTED_RESULTS: [[coco, bbox, AP, 0.4, 0.01]]\n",
            "7: TEST.EXPECTED_RESULTS is not supported: results are not asserted after a test; "
            "compare inference/NAME/metrics.json",
        ),
    ],
)
def test_others_are_refused_with_the_reason(answer, text, expected):
    assert answer(text) == f"my.yaml:{expected}"
