"""Where weights come from: a path, a URL, `catalog://` (the reference's names), `torchvision://resnet50` or
`package://NAME/path`, a file of an installed package."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable
from pathlib import Path

import torch
from torchvision import models
from tqdm import tqdm

from engine.checkpoint import packaged, timm_hub
from engine.checkpoint.io import nearest_file, not_weights
from engine.errors import InputError
from engine.files import expanded, replacing, sha256
from engine.spelling import did_you_mean

_DETECTRON = "https://dl.fbaipublicfiles.com/detectron"
_BASELINE = "12_2017_baselines/{name}.yaml.{signature}/output/train"
_TIMEOUT_SECONDS = 30
TIMM = "timm://"
_TORCHVISION_BODIES = ("resnet", "resnext", "mobilenet_v3", "convnext", "swin")

_IMAGENET = {
    "MSRA/R-50": "MSRA/R-50.pkl",
    "MSRA/R-50-GN": "47261647/R-50-GN.pkl",
    "MSRA/R-101": "MSRA/R-101.pkl",
    "MSRA/R-101-GN": "47592356/R-101-GN.pkl",
    "FAIR/20171220/X-101-32x8d": "20171220/X-101-32x8d.pkl",
    "FAIR/20171220/X-101-64x4d": "FBResNeXt/X-101-64x4d.pkl",
}

# Model id and name -> signature in the URL, of Detectron's December 2017 baselines.
_COCO = {
    "35857197/e2e_faster_rcnn_R-50-C4_1x": "01_33_49.iAX0mXvW",
    "35857345/e2e_faster_rcnn_R-50-FPN_1x": "01_36_30.cUF7QR7I",
    "35857890/e2e_faster_rcnn_R-101-FPN_1x": "01_38_50.sNxI7sX7",
    "36761737/e2e_faster_rcnn_X-101-32x8d-FPN_1x": "06_31_39.5MIHi1fZ",
    "35858791/e2e_mask_rcnn_R-50-C4_1x": "01_45_57.ZgkA7hPB",
    "35858933/e2e_mask_rcnn_R-50-FPN_1x": "01_48_14.DzEQe4wC",
    "35861795/e2e_mask_rcnn_R-101-FPN_1x": "02_31_37.KqyEK4tT",
    "36761843/e2e_mask_rcnn_X-101-32x8d-FPN_1x": "06_35_59.RZotkLKI",
    "37129812/e2e_mask_rcnn_X-152-32x8d-FPN-IN5k_1.44x": "09_35_36.8pzTQKYK",
}


def _coco_url(entry: str, signature: str) -> str:
    number, name = entry.split("/")
    tail = "coco_2014_train%3Acoco_2014_valminusminival/generalized_rcnn/model_final.pkl"
    return f"{_DETECTRON}/{number}/{_BASELINE.format(name=name, signature=signature)}/{tail}"


CATALOG: dict[str, str] = {
    **{f"ImageNetPretrained/{name}": f"{_DETECTRON}/ImageNetPretrained/{file}" for name, file in _IMAGENET.items()},
    **{f"Caffe2Detectron/COCO/{entry}": _coco_url(entry, signature) for entry, signature in _COCO.items()},
}


def resolve(uri: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The local file of a URI; a remote one is downloaded once into the cache.

    Args:
        uri: a path, `http(s)://...`, `catalog://ImageNetPretrained/MSRA/R-50`, `torchvision://resnet50`,
            `torchvision://resnet50?weights=IMAGENET1K_V1`, `timm://resnet18d`, `package://NAME/models/weights.pth`.
        cache_dir: default `$ENGINE_CACHE`, else `~/.cache/engine/weights`. It has a folder for each host, with the
            paths of the URLs in it.

    Raises:
        InputError: unknown name (suggests the nearest one), no such file, or no network (names the URL and where to
            put the file).
    """
    url, path = locate(uri, cache_dir)
    if not url or path.is_file():
        return path
    if str(uri).startswith(TIMM) and (from_hub := timm_hub.fetch(str(uri), url)):
        return from_hub
    _download(url, path)
    return path


def locate(uri: str | Path, cache_dir: str | Path | None = None) -> tuple[str, Path]:
    """The URL of a URI ("" for a local file) and where its file is, or will be; without using the network.

    Raises:
        InputError: see `resolve`.
    """
    text = str(uri)
    if not text:
        raise InputError("no weights given: set MODEL.WEIGHT to a file or URI")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        path = Path(expanded(urllib.parse.unquote(rest) if separator else text))
        if not path.exists():
            raise InputError(f"{path}: no such weights file{nearest_file(path)}")
        return "", path
    if scheme == "package":
        return "", packaged.weights_file(text)
    if scheme == "timm":
        url, found = timm_hub.locate(text)
        return url, found or cache_path(url, cache_dir)
    if scheme == "catalog":
        url = CATALOG.get(rest.strip("/"))
        if url is None:
            raise InputError(f"{text}: not in the catalog{_nearest(rest, CATALOG, 'catalog://')}")
    elif scheme == "torchvision":
        url = _torchvision_url(rest)
    elif scheme in ("http", "https"):
        url = text
    else:
        raise InputError(
            f"{text}: unknown scheme; use a path, https://, catalog://, torchvision://, timm:// or package://"
        )
    path = cache_path(url, cache_dir)
    hub = Path(torch.hub.get_dir()) / "checkpoints" / path.name
    if scheme == "torchvision" and not path.is_file() and hub.is_file():
        return "", hub
    return url, path


def cache_path(url: str, cache_dir: str | Path | None = None) -> Path:
    """The path of the file of a URL in the cache.

    Example:
        >>> cache_path("https://host.org/a/b.pth", "/cache").as_posix()
        '/cache/host.org/a/b.pth'
    """
    cache = cache_dir or os.environ.get("ENGINE_CACHE") or "~/.cache/engine/weights"
    parts = urllib.parse.urlsplit(url)
    segments = [urllib.parse.unquote(part) for part in parts.path.split("/")]
    segments = [re.sub(r"[^\w.%+=,-]", "_", part) for part in segments if part not in ("", ".", "..")]
    name = segments.pop() if segments else "weights.pth"
    if parts.query:  # https://host/get?id=1 and ?id=2 are two files
        stem, dot, suffix = name.rpartition(".")
        digest = hashlib.sha256(parts.query.encode()).hexdigest()[:8]
        name = f"{stem}-{digest}.{suffix}" if dot else f"{name}-{digest}"
    try:
        folder = Path(expanded(cache))
    except InputError as error:
        raise InputError(f"no folder for downloaded weights: {error}; set ENGINE_CACHE") from None
    return folder.joinpath(re.sub(r"[^\w.-]", "_", parts.netloc), *segments, name)


def _nearest(name: str, known: Iterable[str], prefix: str) -> str:
    known = list(known)
    ends = {each.rpartition("/")[2]: each for each in known}  # MSRA/R-50 is the end of a longer name
    by_end = next((each for each in known if each.upper().endswith(name.upper())), ends.get(name.rpartition("/")[2]))
    if by_end:
        return f"; did you mean {prefix}{by_end}?"
    return did_you_mean(name, known, prefix=prefix) or f"; it has {', '.join(sorted(known)[:6])}, ..."


def _torchvision_url(name: str) -> str:
    """The URL of MODEL or MODEL?weights=NAME, where NAME is the name of weights of torchvision: IMAGENET1K_V2."""
    model, _, query = name.partition("?")
    try:
        known_weights = models.get_model_weights(model)
    except ValueError:
        known = [each for each in models.list_models(models) if each.startswith(_TORCHVISION_BODIES)]
        nearest = _nearest(model, known, "torchvision://")
        raise InputError(f"torchvision://{name}: torchvision has no such model{nearest}") from None
    if not query:
        return known_weights.DEFAULT.url
    chosen = query.removeprefix("weights=")
    if query.startswith("weights=") and chosen in known_weights.__members__:
        return known_weights[chosen].url
    names = ", ".join(f"{model}?weights={each}" for each in known_weights.__members__)
    raise InputError(f"torchvision://{name}: torchvision has no such weights; write one of {names}")


def _download(url: str, path: Path) -> None:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "engine"})
        with (
            urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response,
            replacing(path, f".{uuid.uuid4().hex}.tmp") as file,  # several processes may download at once
        ):
            size = int(response.headers.get("Content-Length") or 0)
            with tqdm.wrapattr(response, "read", total=size or None, desc=path.name, leave=False) as reader:
                start = reader.read(512)
                if start and (reason := not_weights(start)):  # said before the rest of a web page fills the disk
                    raise InputError(f"{url}: {reason}")
                file.write(start)
                shutil.copyfileobj(reader, file)
            file.flush()
            _check_download(url, Path(file.name), size)
    except (OSError, ValueError) as error:  # URLError, HTTPError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"cannot download {url} ({reason}); fetch it on another machine and put it at {path}"
        ) from None


def _check_download(url: str, path: Path, size: int) -> None:
    """Raise InputError unless `path` holds weights of `size` bytes (if not 0), with the checksum that `url` names."""
    received = path.stat().st_size
    if received == 0 or (size and received != size):
        raise InputError(f"{url}: the download stopped after {received} of {size or 'some'} bytes; try again")
    named = re.search(r"-([0-9a-f]{8,})\.", url)  # torchvision's files carry their SHA-256 in the name
    if named and "download.pytorch.org" in url and not sha256(path).startswith(named[1]):
        raise InputError(f"{url}: the downloaded file does not have the checksum in its name; try again")
