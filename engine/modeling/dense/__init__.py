"""Dense stages: one prediction for each anchor of a pyramid. Those without keys of their own are registered here."""

from engine.modeling.dense import gfl, tood, vfnet

__all__ = ["gfl", "tood", "vfnet"]
