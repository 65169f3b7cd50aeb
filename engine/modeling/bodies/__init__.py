"""Bodies: from images to feature maps; the built-in ones are registered with the package."""

from engine.modeling.bodies import efficientnet_lite, resnet, timm_body, torchvision_bodies
from engine.modeling.bodies.body import BODIES, Body, freezable, freeze, is_frozen, strides_of

__all__ = [
    "BODIES",
    "Body",
    "efficientnet_lite",
    "freezable",
    "freeze",
    "is_frozen",
    "resnet",
    "strides_of",
    "timm_body",
    "torchvision_bodies",
]
