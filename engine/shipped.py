"""Where the folders `configs`, `datasets`, `demo` and `tools` are: in a checkout, or in the installed package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_shipped"  # setup.py puts them there; a checkout and an editable install do not have it


def shipped(folder: str) -> Path:
    """The folder of the repository with this name.

    Example:
        >>> (shipped("configs") / "atss/atss_R_50_FPN_1x.yaml").is_file()
        True
    """
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent) / folder


def shipped_config(name: str) -> str:
    """The path that the packaged configuration of this name has or would have; "" for a name that can be none of them.

    Example:
        >>> shipped_config("../secret.yaml"), shipped_config("/etc/mine.yaml")
        ('', '')
    """
    inside = os.path.normpath(name)
    leads_out = os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir
    return "" if leads_out else os.path.join(shipped("configs"), inside)


def command_line(script: str, command: str) -> str:
    """How the user of this process starts a tool: `engine train`, or in a checkout `python tools/train_net.py`."""
    return f"engine {command}" if _INSTALLED.is_dir() or sys.argv[0].startswith("engine ") else f"python {script}"
