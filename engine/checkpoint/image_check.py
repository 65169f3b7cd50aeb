"""Checks, by the statistics of its first norm, whether a body gets images like those that it was trained on.

The first batch norm of a body knows the mean and variance that the first convolution had in training. With another
mean, deviation or range of the images (`IMAGE_KEYS`) the convolution gives others. The limits were measured, see
docs/decisions/image_check.md.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.log import get_logger
from engine.structures import ImageBatch

IMAGE_KEYS = ("INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD", "INPUT.TO_BGR255")
"""The conventions under which a checkpoint holds how its images were normalised. INPUT.ORIENTATION is not among them:
it belongs to the annotations of a data set, not to the weights."""
QUANTILE = 0.9
MAX_DISTANCE = 2.1
"""White is 2 standard deviations of photographs away from their mean, black less."""
MIN_LOG_RATIO, MAX_LOG_RATIO = -7.0, 4.0


@dataclass(frozen=True)
class FirstNorm:
    """The first norm of a body: its running statistics, and those of what a batch gives it; float64 (C,)."""

    name: str
    mean: Tensor
    variance: Tensor
    running_mean: Tensor
    running_variance: Tensor  # eps included, which limits the ratios of channels that are always 0

    @property
    def distance(self) -> float:
        """Distance of the means in units of the running deviation, the 0.9 quantile over the channels.

        Most filters of a first layer respond to edges, with means around 0 whatever is subtracted from the image; the
        quantile looks at those that respond to brightness.
        """
        distances = (self.mean - self.running_mean).abs() / self.running_variance.sqrt()
        return float(distances.quantile(QUANTILE))

    @property
    def log_ratio(self) -> float:
        """Natural logarithm of the variance over the running one, the median over the channels."""
        return float((self.variance / self.running_variance).log().median())

    def fault(self, is_stated: bool = False) -> str | None:
        """What is seen of images that the weights were not trained on, in words.

        `is_stated`: the file states the normalisation and it is used, so that bright or dark images are just that.
        """
        if not MIN_LOG_RATIO <= self.log_ratio <= MAX_LOG_RATIO:
            return f"variances are {math.exp(self.log_ratio):.3g} times those of the training"
        if self.distance > MAX_DISTANCE and not is_stated:
            return f"means are {self.distance:.1f} standard deviations from those of the training"
        return None


class _Reached(Exception):
    """Ends the pass through a body at its first norm."""


def first_norm(body: nn.Module, images: Tensor) -> FirstNorm | None:
    """The statistics of the first norm of `body` for normalised `images` (N, C, H, W), padded with zeros.

    None if its first norm has no statistics, or none that were learnt (means all 0 and variances all equal: those of a
    new layer, and of the affine layers of Caffe2). The body runs up to that norm; nothing in it is changed.
    """
    norms = {module: name for name, module in body.named_modules() if _is_norm(module)}
    reached: list[tuple[nn.Module, Any]] = []

    thread = threading.get_ident()

    def stop(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:  # others may share the body, and go on
            reached.append((module, inputs[0] if inputs else None))
            raise _Reached

    handles = [module.register_forward_pre_hook(stop) for module in norms]
    try:
        devices = [images.device] if images.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            body(images)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    module, maps = reached[0] if reached else (None, None)
    mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if mean is None or variance is None or not isinstance(maps, Tensor) or maps.ndim != 4:
        return None
    mean, variance = mean.double(), variance.double()
    if not mean.any() and (variance == variance[0]).all():
        return None
    seen = _statistics(maps, images)
    if seen is None:
        return None
    eps = max(float(getattr(module, "eps", 0.0)), torch.finfo(torch.float32).eps)
    return FirstNorm(norms[module], seen[0], seen[1] + eps, mean, variance + eps)


def check_first_images(
    watched: nn.Module, body: nn.Module, source: str, settings: Mapping[str, Any], is_stated: bool = False
) -> None:
    """Log one warning if the first images that `watched` gets do not look like those of the training of `body`.

    Args:
        watched: a module that contains `body` and is called with normalised images, as a batch or a tensor. Its first
            call removes what is added here.
        body: its weights are those of `source`.
        settings: keys of the configuration and their values, to be named in the warning.
        is_stated: the file states the same values; then only the variances are checked, for images of another range.
    """
    if any(map(_is_norm, body.modules())):
        watched.register_forward_pre_hook(_FirstImages(body, source, dict(settings), is_stated))


@dataclass
class _FirstImages:
    """The hook; a class, since a model that waits for its first images may be copied or sent to another process."""

    body: nn.Module
    source: str
    settings: dict[str, Any]
    is_stated: bool
    is_done: bool = False

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.is_done or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        self.is_done = True
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is self:
                module._forward_pre_hooks.pop(key, None)
        images = inputs[0] if isinstance(inputs[0], Tensor) else _batch(inputs[0])
        if not (isinstance(images, Tensor) and images.ndim == 4 and len(images)):
            return
        found = first_norm(self.body, images)
        fault = found.fault(self.is_stated) if found else None
        if fault:
            get_logger(__name__).warning(
                "the first images do not look like those that %s was trained on: before the norm %s of the body, %s; "
                "unless they are unusually bright, dark or flat, correct %s",
                self.source,
                found.name,
                fault,
                ", ".join(f"{key} {value}" for key, value in self.settings.items()),
            )


def _batch(images: ImageBatch | Sequence[Tensor]) -> Tensor:
    return images.tensor if isinstance(images, ImageBatch) else ImageBatch.from_list(images).tensor


def _is_norm(module: nn.Module) -> bool:
    has_statistics = isinstance(getattr(module, "running_var", None), Tensor)
    return has_statistics or isinstance(getattr(module, "eps", None), float)


def _statistics(maps: Tensor, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and variance (C,) of `maps` (N, C, h, w) where `images` (N, 3, H, W) are not padded.

    None if they are padding only.
    """
    is_used = (images != 0).any(dim=1)  # (N, H, W)
    count, total, squares = 0, 0.0, 0.0
    for each, used in zip(maps, is_used, strict=True):
        rows, columns = used.any(dim=1).nonzero(), used.any(dim=0).nonzero()
        if not len(rows):
            continue
        height = -(-(int(rows[-1]) + 1) * each.shape[1] // images.shape[2])
        width = -(-(int(columns[-1]) + 1) * each.shape[2] // images.shape[3])
        pixels = each[:, :height, :width].double().flatten(1)  # (C, h * w of the image)
        count, total, squares = count + pixels.shape[1], total + pixels.sum(1), squares + pixels.square().sum(1)
    if not count:
        return None
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0)
