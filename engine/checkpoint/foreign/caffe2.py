"""Caffe2 / Detectron blobs: ResNet and ResNeXt bodies of any depth, affine or group norm.

conv1_w                 -> backbone.body.stem.conv1.weight
res_conv1_bn_s          -> backbone.body.stem.bn1.weight
res3_0_branch2b_w       -> backbone.body.layer2.0.conv2.weight
res3_0_branch2b_bn_b    -> backbone.body.layer2.0.bn2.bias
res3_0_branch1_w        -> backbone.body.layer2.0.downsample.0.weight
res3_0_branch1_bn_s     -> backbone.body.layer2.0.downsample.1.weight
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_BLOCK = re.compile(r"res([2-5])_(\d+)_branch(1|2a|2b|2c)_(?:(bn|gn)_)?([wbs])")
SIGNATURE = (rf"{_BLOCK.pattern}$",)
NORM_EPS = 0.0
"""Scale and bias are all that is left of a batch norm."""
_STEM = re.compile(r"(?:res_)?conv1_(?:(bn|gn)_)?([wbs])")
_CLASSIFIER = re.compile(r"(?:fc1000|pred)_([wb])")
_KIND = {"w": "weight", "s": "weight", "b": "bias"}


def rename(blob: str) -> str | None:
    """Our name of a Caffe2 blob; None for momentum; blobs outside the body keep their names.

    Example:
        >>> rename("res4_22_branch2c_bn_s")
        'backbone.body.layer3.22.bn3.weight'
    """
    if blob.endswith("_momentum"):
        return None
    if match := _CLASSIFIER.fullmatch(blob):
        return f"fc1000.{_KIND[match[1]]}"
    if match := _STEM.fullmatch(blob):
        return f"backbone.body.stem.{'bn1' if match[1] else 'conv1'}.{_KIND[match[2]]}"
    if match := _BLOCK.fullmatch(blob):
        stage, block, branch, norm, kind = match.groups()
        if branch == "1":
            part = "downsample.1" if norm else "downsample.0"
        else:
            part = f"{'bn' if norm else 'conv'}{'abc'.index(branch[1]) + 1}"
        return f"backbone.body.layer{int(stage) - 1}.{block}.{part}.{_KIND[kind]}"
    return blob


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Blobs under our names. Batch norm has only scale and bias there, so mean 0 and variance 1 are added."""
    translated = {}
    for blob, tensor in tensors.items():
        name = rename(blob)
        if name is None:
            continue
        translated[name] = tensor
        if blob.endswith("_bn_s"):
            prefix = name.removesuffix("weight")
            translated[f"{prefix}running_mean"] = torch.zeros_like(tensor)
            translated[f"{prefix}running_var"] = torch.ones_like(tensor)
    return translated
