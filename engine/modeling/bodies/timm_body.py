"""Bodies from the package timm, by name: `timm/resnet18d`, `timm/convnextv2_atto`. It is an extra of this package.

Parameter names are those of timm's `features_only` models, below `network`.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import InputError
from engine.modeling.bodies.adopted import set_depthwise, set_norms
from engine.modeling.bodies.body import BODIES, freeze
from engine.spelling import did_you_mean

LEAST_STRIDE = 4
"""Finer maps are left out, as the necks need none."""
_SET_HERE = {
    "pretrained": "MODEL.WEIGHT: timm://NAME loads its weights",
    "checkpoint_path": "MODEL.WEIGHT loads weights",
    "features_only": "a body always has maps of features",
    "in_chans": "INPUT.CHANNELS sets it",
}
"""Arguments of `timm.create_model` that are not the user's, and why."""
_PROBE = (96, 160)
"""Height and width of an image that is neither square nor a multiple of 64."""
_ANY_SIZE = ("strict_img_size", False), ("dynamic_img_size", True)
"""Arguments of timm's transformers that let them take images of other sizes than in their training."""


class TimmBody(nn.Module):
    """A `features_only` model of timm.

    Args:
        network: the model; its last maps of each stride from 4 on are used.
        name: for messages.
        pixel_mean, pixel_std: of the images that timm's weights of the model were trained on.

    Attributes:
        out_channels, strides: of the maps.
        weights_format, pixel_mean, pixel_std: see `Body`.
    """

    weights_format = "timm"

    def __init__(self, network: nn.Module, name: str, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        self.network, self.name = network, name
        self.pixel_mean, self.pixel_std = tuple(pixel_mean), tuple(pixel_std)
        strides, channels = network.feature_info.reduction(), network.feature_info.channels()
        self.kept = [i for i, stride in enumerate(strides) if stride >= LEAST_STRIDE]
        self.strides = tuple(strides[i] for i in self.kept)
        self.out_channels = tuple(channels[i] for i in self.kept)
        self.is_channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        self._check_sizes()

    def layer_groups(self) -> list[nn.Module]:
        """The stem and the parts between the maps, from the image on; the whole network if timm does not name them."""
        return _parts(self.network) or [self.network]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> maps (N, out_channels[i], about H / strides[i], about W / strides[i])."""
        maps = self.network(x)
        maps = [maps[i] for i in self.kept]
        return [each.permute(0, 3, 1, 2) for each in maps] if self.is_channels_last else maps  # (N, C, H, W)

    @torch.no_grad()
    def _check_sizes(self) -> None:
        """Raise InputError unless images of any size give maps of the stated channels and strides."""
        # On the meta device nothing is computed but shapes.
        body = copy.deepcopy(self).to("meta").eval()
        in_channels = next(each for each in body.modules() if isinstance(each, nn.Conv2d)).in_channels
        stated = [(c, *(side // s for side in _PROBE)) for c, s in zip(self.out_channels, self.strides, strict=True)]
        try:
            maps = body(torch.zeros(1, in_channels, *_PROBE, device="meta"))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{self.name} cannot be a body: it only takes images of its own size ({reason})") from None
        if [tuple(each.shape[1:]) for each in maps] != stated:
            raise InputError(
                f"{self.name} cannot be a body: its maps do not have the channels and strides that it states"
            )


@BODIES.register("timm")
def timm_body(
    model: str, norm_name: str = "FrozenBN", freeze_at: int = 0, in_channels: int = 3, **arguments: Any
) -> TimmBody:
    """The body `timm/MODEL`, from random weights.

    Args:
        model: timm's name, with or without the tag of its weights.
        norm_name: BN leaves the batch norms as they are, FrozenBN fixes them, see `adopted.set_norms`.
        freeze_at: how many leading parts stay fixed: the stem, then what lies between the maps.
        in_channels: of the images.
        arguments: of `timm.create_model`, such as drop_path_rate.

    Raises:
        InputError: timm is not installed, has no such model, or has it without maps of features; or the parts of the
            model are not known, so that none can be frozen.
    """
    name = f"timm/{model}"
    for argument in _SET_HERE.keys() & arguments.keys():
        raise InputError(f"MODEL.BACKBONE.ARGS.{argument}: remove it for {name}; {_SET_HERE[argument]}")
    network = _created(name, model, {"in_chans": in_channels, **arguments})
    import timm

    trained = timm.get_pretrained_cfg(model) or timm.get_pretrained_cfg("resnet50")  # of a model without weights
    body = TimmBody(network, name, trained.mean, trained.std)
    set_depthwise(network)
    set_norms(network, norm_name, name)
    if freeze_at and not _parts(network):
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_CONV_BODY_AT is {freeze_at}, but the parts of {name} are not known; set it to 0"
        )
    freeze(body.layer_groups(), freeze_at)
    return body


def known_model(model: str, name: str) -> str:
    """`model`, if timm has a model of this name, with or without a tag of weights; `name` is for messages.

    Raises:
        InputError: timm is not installed, or has none.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(f"{name} needs the package timm ({error}): pip install timm") from None
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        raise InputError(
            f"{name}: timm {timm.__version__} has no such model{did_you_mean(architecture, timm.list_models())}"
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise InputError(f"{name}: timm {timm.__version__} has no such weights; it has {', '.join(tags) or 'none'}")
    return model


def _created(name: str, model: str, arguments: dict[str, Any]) -> nn.Module:
    known_model(model, name)
    import timm

    for argument, value in (*_ANY_SIZE, ("", None)):
        extra = {argument: value} if argument and argument not in arguments else {}
        try:
            return timm.create_model(model, pretrained=False, features_only=True, **arguments, **extra)
        except TypeError as error:
            if not argument or argument not in str(error):
                raise
        except (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{name} cannot be built as a body: {reason}") from None
    raise AssertionError("the last attempt returns or raises")


def _parts(network: nn.Module) -> list[nn.Module]:
    """The stem, and what lies between the maps of `network`; [] if timm's names of the maps are not names of modules.

    The first map may come from the end of the stem or of a stage after it, which then is a part of its own.
    """
    ends = [_plain(each) for each in network.feature_info.module_name()]
    only = next(network.children())
    root = only if len(list(network.children())) == 1 else network  # timm wraps some models as a whole
    parts: list[list[nn.Module]] = [[]]
    for path, module in _opened(root, "", ends):
        is_end = bool(ends) and _plain(path) == ends[0]
        if is_end and len(parts) == 1 and _has_matrix(parts[0]) and _has_matrix([module]):
            parts.append([])
        parts[-1].append(module)
        if is_end:
            ends.pop(0)
            parts += [[]] if ends else []
    return [] if ends else [nn.ModuleList(part) for part in parts]


def _opened(module: nn.Module, path: str, ends: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """The modules inside `module` by path; those that hold one of `ends` inside are opened in turn."""
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if any(end.startswith(f"{_plain(child_path)}_") for end in ends) and _plain(child_path) not in ends:
            yield from _opened(child, child_path, ends)
        else:
            yield child_path, child


def _plain(path: str) -> str:
    """timm writes stages_0 for stages.0 where it takes a model apart."""
    return path.replace(".", "_")


def _has_matrix(modules: Sequence[nn.Module]) -> bool:
    """Whether they hold a convolution or matrix, not only norms and activations."""
    return any(weight.ndim > 1 for module in modules for weight in module.parameters())
