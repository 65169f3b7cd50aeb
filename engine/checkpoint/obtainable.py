"""Whether weights can be had here, found out without downloading them."""

from __future__ import annotations

import urllib.request

from engine.checkpoint.sources import locate
from engine.errors import InputError

_PATIENCE = 5
"""Seconds for an answer of the server."""


def why_not_obtainable(uri: str) -> str:
    """The reason why weights cannot be obtained; "" if they are on this machine, or the server answers."""
    try:
        url, path = locate(uri)
        if path.is_file():
            return ""
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "engine"})
        with urllib.request.urlopen(request, timeout=_PATIENCE):
            return ""
    except InputError as error:
        return str(error)
    except (OSError, ValueError) as error:  # URLError, HTTPError and timeouts are OSErrors
        return f"no answer from {url} ({getattr(error, 'reason', None) or error})"
