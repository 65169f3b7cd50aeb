"""The first convolution of a body made for images of three channels, for images of another number.

The sum for grey images and the mean for new channels keep the response to an image whose channels are all equal; see
Wang et al., 2016 (temporal segment networks), who start networks for other modalities with the mean over the colours.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.errors import InputError

COLOURS = 3
_BODY = "backbone.body."


def stem_of(targets: Mapping[str, Tensor]) -> str | None:
    """The name of the first convolution's weights in the body, which takes the image.

    Example:
        >>> stem_of({"backbone.body.bn.weight": torch.zeros(4), "backbone.body.conv.weight": torch.zeros(4, 1, 3, 3)})
        'backbone.body.conv.weight'
    """
    return next((name for name, value in targets.items() if name.startswith(_BODY) and value.ndim == 4), None)


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Weights (O, 3, h, w) of a convolution of colour images, for images of `channels`.

    The response to an image whose channels are all equal stays what it is. For one channel the weights are summed. For
    four the first three stay those of the colours and the fourth is their mean; for others each is the mean; both are
    scaled by 3 / channels.

    Example:
        >>> weight = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
        >>> [adapted(weight, channels).flatten().tolist() for channels in (1, 2, 4)]
        [[9.0], [4.5, 4.5], [0.75, 1.5, 4.5, 2.25]]
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    mean = weight.mean(1, keepdim=True)
    if channels == COLOURS + 1:
        return torch.cat([weight, mean], dim=1) * (COLOURS / channels)
    return mean.repeat(1, channels, 1, 1) * (COLOURS / channels)


def with_adapted_stem(
    tensors: dict[str, Tensor], targets: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """`tensors` with the first convolution for the channels of `targets`, and a line that says so; [] if it fits.

    Raises:
        InputError: the weights were trained on images of another number of channels than three.
    """
    name = stem_of(targets)
    weight, target = tensors.get(name), targets.get(name)
    if weight is None or target is None or weight.ndim != 4 or weight.shape[1] == target.shape[1]:
        return tensors, []
    given, wanted = weight.shape[1], target.shape[1]
    if weight.shape[:1] + weight.shape[2:] != target.shape[:1] + target.shape[2:]:
        return tensors, []
    if given != COLOURS:
        raise InputError(
            f"{source}: was trained with INPUT.CHANNELS {given}, but the configuration has {wanted}; only weights of "
            f"{COLOURS} channels can be adapted: set INPUT.CHANNELS {given}, or use others"
        )
    how = {1: "summed", COLOURS + 1: "kept, their mean for the fourth"}.get(wanted, "averaged")
    line = f"{name}: from {given} input channels to the {wanted} of INPUT.CHANNELS ({how}, the same response to grey)"
    return {**tensors, name: adapted(weight.float(), wanted).to(weight.dtype)}, [line]
