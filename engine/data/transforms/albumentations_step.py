"""A pipeline of the package albumentations (or albumentationsx) as one step, where that is installed."""

from __future__ import annotations

import json
import os
import random
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from engine.data.transforms.step import AUGMENTATIONS
from engine.errors import InputError
from engine.structures import Targets

_ROWS = "rows"
_MOST_SEED = 2**62


@AUGMENTATIONS.register("Albumentations")
class AlbumentationsStep:
    """Pixels and boxes through a pipeline of the user's.

    Its random choices come from torch's generator, like those of any step. Boxes are filtered here, not by the
    `bbox_params` of the pipeline: those that are cut too much become ignore regions, and no box is dropped in silence.
    Three channels are given to it as RGB; floats as 0..1.

    Args:
        pipeline: a .yaml or .json file that `albumentations.save` wrote, or "module:name" of a pipeline in a module.
        min_visibility: a box of which less remains becomes an ignore region.
        modules: the modules in which "module:name" may lie, which are imported already.

    Raises:
        InputError: the package is not installed or too old, or there is no such pipeline.
    """

    def __init__(self, pipeline: str, min_visibility: float = 0.25, modules: Sequence[str] = ()) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for a newer version
        try:
            import albumentations
        except ImportError as error:
            raise InputError(
                f"the step Albumentations needs that package ({error}); pip install 'albumentations>=2'"
            ) from None
        self._library = albumentations
        self.min_visibility = min_visibility
        loaded = self._load(pipeline, modules)
        steps = list(loaded.transforms) if isinstance(loaded, albumentations.Compose) else [loaded]
        if not hasattr(albumentations.Compose, "set_random_state"):
            version = getattr(albumentations, "__version__", "")
            raise InputError(f"albumentations {version} cannot be seeded per image; pip install 'albumentations>=2'")
        self._all = self._compose(steps, 0.0)
        self._visible = self._compose(steps, min_visibility)

    def _load(self, pipeline: str, modules: Sequence[str]) -> Any:
        if Path(pipeline).suffix in (".yaml", ".yml", ".json"):
            return self._load_file(Path(pipeline))
        module, colon, name = pipeline.partition(":")
        if not colon:
            raise InputError(f"pipeline {pipeline}: must be a .yaml or .json file, or module:name")
        if module not in modules:
            raise InputError(f"pipeline {pipeline}: add {module} to IMPORTS, so that it may be imported")
        loaded = getattr(sys.modules[module], name, None)
        if not isinstance(loaded, self._library.BasicTransform | self._library.BaseCompose):
            raise InputError(f"pipeline {pipeline}: {module} has no pipeline of that name")
        return loaded

    def _load_file(self, path: Path) -> Any:
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            # Names in the file are looked up among the transforms of the library; nothing is imported or run.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._library.from_dict(content)
        except OSError as error:
            raise InputError(f"pipeline {path}: cannot be read ({error.strerror})") from None
        except Exception as error:  # whatever the library says of a file that is not its own
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"pipeline {path}: no pipeline that albumentations.save wrote ({first_line})") from None

    def _compose(self, steps: list[Any], min_visibility: float) -> Any:
        boxes = self._library.BboxParams(
            format="pascal_voc", label_fields=[_ROWS], min_visibility=min_visibility, clip=True
        )
        with warnings.catch_warnings():  # a pipeline without geometry has no use for boxes, and says so
            warnings.simplefilter("ignore")
            return self._library.Compose(steps, bbox_params=boxes)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        seed = int(torch.randint(_MOST_SEED, ()))
        is_float, has_colour = image.dtype != torch.uint8, image.shape[0] == 3
        pixels = image.flip(0) if has_colour else image
        array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())  # (H, W, C)
        array = array / np.float32(255) if is_float else array
        boxes = _inside(targets)
        result, rows = self._run(self._all, seed, array, boxes)
        out = torch.from_numpy(np.ascontiguousarray(result["image"])).permute(2, 0, 1)
        out = (out * 255).clamp(0, 255) if is_float else out
        out = out.flip(0) if has_colour else out
        size = tuple(out.shape[-2:])
        found = replace(
            targets[torch.tensor(rows, dtype=torch.int64)],
            boxes=torch.tensor(np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4)),
            size=size,
        )
        if self.min_visibility > 0 and len(found):
            _, visible = self._run(self._visible, seed, array, boxes)
            is_hidden = ~torch.isin(torch.tensor(rows), torch.tensor(visible, dtype=torch.int64))
            found = replace(found, ignore=found.ignore | is_hidden)
        return out, found

    @staticmethod
    def _run(compose: Any, seed: int, array: np.ndarray, boxes: np.ndarray) -> tuple[dict[str, Any], list[int]]:
        """What a pipeline returns, and the rows of the boxes that remain."""
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = compose(image=array, bboxes=boxes, **{_ROWS: np.arange(len(boxes))})
        return result, [int(row) for row in result[_ROWS]]


def _inside(targets: Targets) -> np.ndarray:
    """(M, 4) float32 boxes, which the library demands to lie inside the image."""
    height, width = targets.size
    return targets.boxes.numpy().clip(0, [width, height, width, height]).astype(np.float32)
