"""Checks of data sets against their images and the configuration: what is looked at goes in, `Finding`s come out.

One file per kind of check; each registers its functions in `CHECKS` and declares the codes of its findings.
"""

# isort: off
# The order is that of the findings.
from engine.data.doctor import reading, images, boxes, box_pairs, classes, splits, pictures  # noqa: F401
from engine.data.doctor import tiles, anchors, weights, plan, machine  # noqa: F401
# isort: on

from engine.data.doctor.case import CHECKS, Case, run_checks
from engine.data.doctor.examined import ExaminedSet, examine
from engine.data.doctor.findings import CODES, Code, Example, Finding, declare

__all__ = [
    "CHECKS",
    "CODES",
    "Case",
    "Code",
    "ExaminedSet",
    "Example",
    "Finding",
    "declare",
    "examine",
    "run_checks",
]
