"""Bodies: from images to feature maps; the built-in ones are registered with the package."""

from engine.modeling.bodies import resnet
from engine.modeling.bodies.body import BODIES, Body, freeze, strides_of

__all__ = ["BODIES", "Body", "freeze", "strides_of", "resnet"]
