"""What the tree can say and this version cannot do yet. Delete a row when its part is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# key -> (is it asked for, what it is, what to write instead)
NOT_YET: dict[str, tuple[Callable[[Any], bool], str, str]] = {}
