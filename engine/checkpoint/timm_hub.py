"""Weights that timm knows by name: `timm://resnet18d.ra2_in1k`, read by our own reader. Without a tag, timm's default.

The files are in the cache of huggingface_hub, whose settings (HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT) hold here too.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from engine.checkpoint.foreign.rename import rgb_conventions
from engine.errors import InputError
from engine.modeling.bodies.timm_body import known_model

_FILES = ("model.safetensors", "pytorch_model.bin")
_PATIENCE = 10
"""Seconds for an answer of the server."""


def locate(uri: str) -> tuple[str, Path | None]:
    """The URL of `timm://NAME` and its file on this machine, None if it is not here yet.

    Raises:
        InputError: timm or huggingface_hub is missing, or timm has no weights of this name.
    """
    import huggingface_hub as hub

    config = _config(uri)
    if config.file:
        return "", Path(config.file)
    for file in _files(config) if config.hf_hub_id else ():
        found = hub.try_to_load_from_cache(config.hf_hub_id, file)
        if isinstance(found, str):
            return "", Path(found)
    if config.hf_hub_id:
        return hub.hf_hub_url(config.hf_hub_id, _files(config)[0]), None
    return config.url, None


def fetch(uri: str, url: str) -> Path | None:
    """The file of `timm://NAME` in the cache of huggingface_hub, downloaded; None if it is not on a hub, but at `url`.

    Raises:
        InputError: it cannot be downloaded.
    """
    import huggingface_hub as hub

    config = _config(uri)
    if not config.hf_hub_id:
        return None
    reason = "" if hub.constants.HF_HUB_OFFLINE else _why_unreachable(url)
    for file in () if reason else _files(config):
        try:
            return Path(hub.hf_hub_download(config.hf_hub_id, file))
        except Exception as error:  # of the network, of the hub and of its client, which has classes of its own
            reason = reason or (str(error).splitlines() or [type(error).__name__])[0]
    raise InputError(
        f"{uri}: cannot download {url} ({reason}); fetch it on another machine and set MODEL.WEIGHT to the file"
    )


def _why_unreachable(url: str) -> str:
    """Why the server does not answer at all, "" if it does. The hub's client would try for a minute, and say so."""
    try:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "engine"})
        with urllib.request.urlopen(request, timeout=_PATIENCE):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)


def conventions(uri: str) -> dict[str, Any]:
    """The images that the weights `timm://NAME` were trained on."""
    config = _config(uri)
    return rgb_conventions(config.mean, config.std)


def _files(config: Any) -> tuple[str, ...]:
    """Names of the file in the repository of the model, in the order of preference."""
    return (config.hf_hub_filename,) if config.hf_hub_filename else _FILES


def _config(uri: str) -> Any:
    """timm's description of the weights."""
    name = known_model(uri.partition("://")[2].strip("/"), uri)
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.file or config.hf_hub_id or config.url):
        raise InputError(f"{uri}: timm {timm.__version__} has no weights of this name")
    if config.custom_load:
        raise InputError(f"{uri}: its file is not a state dict, but of a kind that only timm's own code reads")
    return config
