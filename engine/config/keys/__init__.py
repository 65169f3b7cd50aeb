"""Every key of the tree, declared once: a file per subject, put together here.

Spelling and defaults are those of the reference (ATSS on maskrcnn-benchmark), so that its YAML files load unchanged;
keys that the reference does not have are marked `ours=True`. Rules between keys are in `rules*.py`.
"""

from __future__ import annotations

from engine.config.declaration import Key
from engine.config.keys import data, dense, evaluation, model, run, solver, tiling, two_stage

_FILES = (run, model, dense, two_stage, data, tiling, solver, evaluation)  # the order of a dump

KEYS: dict[str, Key] = {key.name: key for file in _FILES for key in file.KEYS}

GROUPS: dict[str, str] = {**model.GROUPS, **two_stage.GROUPS, **tiling.GROUPS, **solver.GROUPS, **evaluation.GROUPS}
"""What some groups of keys are for."""

MAPPINGS: dict[str, Key] = {name: key for name, key in KEYS.items() if key.type is dict}
"""The keys whose values map names of the user's to something."""
