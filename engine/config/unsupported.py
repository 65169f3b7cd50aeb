"""What the tree can say and this version cannot do yet. Delete a row when its part is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# key -> (is it asked for, what it is, what to write instead)
NOT_YET: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "MODEL.RETINANET_ON": (lambda on: on, "RetinaNet", "use MODEL.ATSS_ON: True"),
    "MODEL.FCOS_ON": (lambda on: on, "FCOS", "use MODEL.ATSS_ON: True"),
    "MODEL.RPN_ONLY": (
        lambda only: not only,
        "two-stage detectors",
        "write MODEL.RPN_ONLY: True with MODEL.ATSS_ON: True",
    ),
}
