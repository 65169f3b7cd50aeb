"""Batch norms merged into the convolutions before them: both are linear in testing; a pass over the maps is saved."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from engine.layers.deform_conv import DeformConv2d

CONVOLUTIONS = (nn.Conv2d, DeformConv2d)
FOLDABLE_NORMS = (_BatchNorm, FrozenBatchNorm2d)
"""Those whose factors do not depend on the input; group norms stay."""


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy for testing whose batch norms are merged into the convolutions before them; the outputs are the same.

    A norm is merged if the graph of a module shows that it is the only one to see the convolution's output, wherever
    the two stand among the submodules. A module whose graph depends on values (such as a loop over levels) is left to
    its submodules, each on its own. What is not merged keeps working: group norms, norms before a convolution or
    without statistics of their own, convolutions that several modules share or whose weights are computed.

    Args:
        model: it keeps its weights and its mode.

    Returns:
        The copy in evaluation mode; each merged norm is an identity. It cannot be trained further as the original can.
    """
    folded = copy.deepcopy(model).eval()
    uses = Counter(id(module) for _, module in folded.named_modules(remove_duplicate=False))
    for conv, owner, name in list(_pairs(folded)):
        norm = getattr(owner, name)
        if uses[id(conv)] == uses[id(norm)] == 1 and norm.running_mean is not None and "weight" in conv._parameters:
            _merge(conv, norm)
            setattr(owner, name, nn.Identity())
    return folded


class _Tracer(fx.Tracer):
    """Sees convolutions and norms as single calls, also those that are not torch's own classes."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, (*CONVOLUTIONS, *FOLDABLE_NORMS)) or super().is_leaf_module(module, path)


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """What holds the weights of each convolution whose output only a norm sees, the norm's owner and its name there."""
    if isinstance(module, (*CONVOLUTIONS, *FOLDABLE_NORMS)):
        return
    try:
        graph = _Tracer().trace(module)
    except Exception:  # a module's own code ran on a stand-in for its input: it may raise anything
        for child in module.children():
            yield from _pairs(child)
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    for node in calls:
        norm, source = module.get_submodule(node.target), node.args[0] if node.args else None
        if not isinstance(norm, FOLDABLE_NORMS) or source not in calls or len(source.users) > 1:
            continue
        conv = module.get_submodule(source.target)
        if isinstance(conv, CONVOLUTIONS) and times[node.target] == times[source.target] == 1:
            path, _, name = node.target.rpartition(".")
            yield conv.conv if isinstance(conv, DeformConv2d) else conv, module.get_submodule(path), name


@torch.no_grad()
def _merge(conv: nn.Module, norm: nn.Module) -> None:
    """Give `conv` the weights of both; computed in float64, so that the outputs differ by the rounding of weights."""
    bias = None if conv.bias is None else conv.bias.double()
    statistics = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    mean, var, weight, shift = (None if each is None else each.double() for each in statistics)
    new_weight, new_bias = fuse_conv_bn_weights(conv.weight.double(), bias, mean, var, norm.eps, weight, shift)
    conv.weight.copy_(new_weight)
    conv.bias = nn.Parameter(new_bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
