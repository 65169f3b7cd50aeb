"""Keys of the reference that this engine does not implement: when they are harmless, else why they are refused.

They are accepted and dropped where they change nothing, so that the reference's files and dumps load; they never enter
the tree. A name covers the keys below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ForeignKey:
    """`pattern` fits the values, as text, that change nothing; `reason` says why others are refused and what to do."""

    pattern: str
    reason: str

    def is_harmless(self, value: Any) -> bool:
        return re.fullmatch(self.pattern, str(value), re.DOTALL) is not None


_ANYTHING = ".*"
_OFF = "(?i:false|no|off)"

FOREIGN_KEYS: dict[str, ForeignKey] = {
    "PATHS_CATALOG": ForeignKey(
        r"(.*config/paths_catalog\.py)?",  # dumps of the reference hold the path of its own catalog file
        "data sets are declared in DATASETS.CATALOG, not in a Python file; remove it",
    ),
    "MODEL.MASK_ON": ForeignKey(_OFF, "this engine predicts boxes, not masks; remove it"),
    "MODEL.KEYPOINT_ON": ForeignKey(_OFF, "this engine predicts boxes, not keypoints; remove it"),
    "MODEL.ROI_MASK_HEAD": ForeignKey(_ANYTHING, "read only while MODEL.MASK_ON, which is refused"),
    "MODEL.ROI_KEYPOINT_HEAD": ForeignKey(_ANYTHING, "read only while MODEL.KEYPOINT_ON, which is refused"),
    "MODEL.FBNET": ForeignKey(_ANYTHING, "read only by the body FBNet, which MODEL.BACKBONE.CONV_BODY refuses"),
    "TEST.EXPECTED_RESULTS": ForeignKey(
        r"|None|\(\)|\[\]", "results are not asserted after a test; compare inference/NAME/metrics.json"
    ),
    "TEST.EXPECTED_RESULTS_SIGMA_TOL": ForeignKey(_ANYTHING, "read only with TEST.EXPECTED_RESULTS, which is refused"),
}


def find(key: str) -> ForeignKey | None:
    """The row that covers a dotted key, or None."""
    return next((row for name, row in FOREIGN_KEYS.items() if f"{key}.".startswith(f"{name}.")), None)
