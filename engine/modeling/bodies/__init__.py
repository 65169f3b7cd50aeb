"""Bodies: from images to feature maps; the built-in ones are registered with the package."""

from engine.modeling.bodies import efficientnet_lite, resnet
from engine.modeling.bodies.body import BODIES, Body, freeze, strides_of

__all__ = ["BODIES", "Body", "freeze", "strides_of", "efficientnet_lite", "resnet"]
