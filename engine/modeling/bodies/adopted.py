"""What bodies made from networks of other packages share: norms by name, fast depthwise layers, other inputs."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.errors import InputError
from engine.layers.depthwise import DepthwiseConv2d
from engine.layers.norm import norm
from engine.log import get_logger
from engine.modeling.bodies.body import freeze


def set_norms(network: nn.Module, norm_name: str, name: str) -> None:
    """Give `network`, the body `name`, the norms that are called `norm_name`, in place of its batch norms.

    With BN they stay as they are. With FrozenBN they stay too, epsilon and all, but keep their weights and statistics.
    Others are replaced by norms with the same epsilon.

    Raises:
        InputError: the package's batch norms do more than normalise (many of timm's activate too), so no other norm can
            take their place.
    """
    batch_norms = {path: module for path, module in network.named_modules() if isinstance(module, _BatchNorm)}
    if norm_name == "FrozenBN":
        freeze(list(batch_norms.values()), len(batch_norms))
    elif not batch_norms:
        get_logger(__name__).warning("%s has no batch norms, so MODEL.RESNETS.NORM %s changes nothing", name, norm_name)
    elif norm_name != "BN":
        for path, module in batch_norms.items():
            if type(module).forward is not nn.BatchNorm2d.forward:
                raise InputError(
                    f"MODEL.RESNETS.NORM is {norm_name}, but {name} has norms that also activate "
                    f"({type(module).__name__}); write BN or FrozenBN"
                )
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, norm(norm_name, module.num_features, module.eps))


def set_depthwise(network: nn.Module) -> None:
    """Put a `DepthwiseConv2d` with the same weights in place of the depthwise convolutions that it equals."""
    for path, conv in list(network.named_modules()):
        if type(conv) is not nn.Conv2d or not conv.groups == conv.in_channels == conv.out_channels > 1:
            continue
        (side, width), (stride, _) = conv.kernel_size, conv.stride
        is_plain = side == width and side % 2 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        if is_plain and conv.padding == (side // 2, side // 2) and conv.stride == (stride, stride):
            faster = DepthwiseConv2d(conv.in_channels, side, stride, bias=conv.bias is not None)
            faster.weight, faster.bias = conv.weight, conv.bias
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, faster)


def set_input_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution of `network`, made for colour images, by one for images of `channels`."""
    path, conv = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if conv.in_channels == channels:
        return
    replacement = nn.Conv2d(
        channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None
    )
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, replacement)
