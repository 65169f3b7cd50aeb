"""What the tree can say and this version cannot do yet. Delete a row when its part is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# key -> (is it asked for, what it is, what to write instead)
NOT_YET: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "MODEL.GROUP_NORM.NUM_GROUPS": (lambda groups: groups != 32, "group norm of other than 32 groups", "write 32"),
    "MODEL.GROUP_NORM.EPSILON": (lambda epsilon: epsilon != 1e-5, "group norm of another epsilon", "write 0.00001"),
}
