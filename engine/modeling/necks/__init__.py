"""Necks: from the maps of a body to a pyramid; the built-in ones are registered with the package."""

from engine.modeling.necks import dyhead, fpn, pafpn
from engine.modeling.necks.neck import NECKS, Neck

__all__ = ["NECKS", "Neck", "dyhead", "fpn", "pafpn"]
