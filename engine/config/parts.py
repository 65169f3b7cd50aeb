"""Which parts a tree names, in the reference's spelling or in ours.

`MODEL.ATSS_ON: True` is the old spelling of `MODEL.DENSE.NAME: ATSS`, and `MODEL.BACKBONE.CONV_BODY:
R-50-FPN-RETINANET` that of `MODEL.BACKBONE.NAME: R-50` with `MODEL.NECK.NAME: FPN-RETINANET`. Assembly and rules ask
here.
"""

from __future__ import annotations

from operator import attrgetter

from yacs.config import CfgNode

from engine.config.keys import KEYS

DENSE_FLAGS = {"ATSS": "MODEL.ATSS_ON", "RETINANET": "MODEL.RETINANET_ON", "FCOS": "MODEL.FCOS_ON"}


def dense_name(tree: CfgNode) -> str:
    """The dense stage, in the words of `MODEL.DENSE.NAME`; "" for none."""
    return tree.MODEL.DENSE.NAME or next(iter(dense_flags(tree)), "")


def dense_flags(tree: CfgNode) -> dict[str, str]:
    """Name -> key of each flag of a dense stage that is on."""
    return {name: key for name, key in DENSE_FLAGS.items() if attrgetter(key)(tree)}


def body_name(tree: CfgNode) -> str:
    """The body, in the words of `MODEL.BACKBONE.NAME`."""
    return tree.MODEL.BACKBONE.NAME or _split(tree.MODEL.BACKBONE.CONV_BODY)[0]


def neck_name(tree: CfgNode) -> str:
    """The neck, in the words of `MODEL.NECK.NAME`; "" for none (R-50-C4)."""
    return tree.MODEL.NECK.NAME or _split(tree.MODEL.BACKBONE.CONV_BODY)[1]


def is_built_in(key: str, name: str) -> bool:
    """Whether a name is one of the words that are declared for `key`."""
    return name in KEYS[key].words.names


def _split(conv_body: str) -> tuple[str, str]:
    """R-50-FPN-RETINANET -> R-50, FPN-RETINANET."""
    for ending, neck in (("-FPN-RETINANET", "FPN-RETINANET"), ("-FPN", "FPN"), ("-C4", "")):
        if conv_body.endswith(ending):
            return conv_body.removesuffix(ending), neck
    return conv_body, ""
