"""Keys of the reference that this engine does not implement: when they are harmless, else why they are refused.

They are accepted and dropped where they change nothing, so that the reference's files and dumps load; they never enter
the tree. A name covers the keys below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ForeignKey:
    """`harmless(value)` tells whether the key may stay; `reason` says why not, and what to do."""

    harmless: Callable[[Any], bool]
    reason: str


def _always(value: Any) -> bool:
    return True


def _is_false(value: Any) -> bool:
    return value is False or value in ("False", "false")


def _is_empty(value: Any) -> bool:
    return value is None or value in ((), [], "", "()", "[]")


def _is_reference_catalog(value: Any) -> bool:
    """Dumps of the reference hold the path of its own catalog file."""
    return value == "" or str(value).endswith("config/paths_catalog.py")


FOREIGN_KEYS: dict[str, ForeignKey] = {
    "PATHS_CATALOG": ForeignKey(
        _is_reference_catalog,
        "data sets are declared in DATASETS.CATALOG, not in a Python file; remove it",
    ),
    "MODEL.MASK_ON": ForeignKey(_is_false, "this engine predicts boxes, not masks; remove it"),
    "MODEL.KEYPOINT_ON": ForeignKey(_is_false, "this engine predicts boxes, not keypoints; remove it"),
    "MODEL.ROI_MASK_HEAD": ForeignKey(_always, "read only while MODEL.MASK_ON, which is refused"),
    "MODEL.ROI_KEYPOINT_HEAD": ForeignKey(_always, "read only while MODEL.KEYPOINT_ON, which is refused"),
    "MODEL.FBNET": ForeignKey(_always, "read only by the body FBNet, which MODEL.BACKBONE.CONV_BODY refuses"),
    "TEST.EXPECTED_RESULTS": ForeignKey(
        _is_empty, "results are not asserted after a test; compare inference/NAME/metrics.json"
    ),
    "TEST.EXPECTED_RESULTS_SIGMA_TOL": ForeignKey(_always, "read only with TEST.EXPECTED_RESULTS, which is refused"),
}


def find(key: str) -> ForeignKey | None:
    """The row that covers a dotted key, or None."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        row = FOREIGN_KEYS.get(".".join(parts[:end]))
        if row is not None:
            return row
    return None
