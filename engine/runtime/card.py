"""What an exported file says about itself, so that any runtime gives the detections of the model it was made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from engine.errors import InputError

CARD_KEY = "engine"
"""Under which the card stands, as JSON, in the metadata of an ONNX file, the rt_info of an OpenVINO model and the extra
files of the formats of torch."""
CARD_FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """The facts that a runtime needs beside the network.

    The network takes `images`, uint8 (N, H, W, C), BGR where C = 3, and `sizes`, int64 (N, 2), the (height, width) of
    each image, beyond which its pixels are ignored. It gives `boxes` float32 (N, D, 4), xyxy in pixels of the images
    given, `scores` float32 (N, D) by falling score, `labels` int64 (N, D) and `counts` int64 (N,), the detections that
    are real; D is the same for all images of a call. Normalisation is part of the network.

    Attributes:
        class_names: of labels 0..K-1.
        thresholds: score threshold by class name; `default_threshold` holds for the others.
        min_size, max_size: limits of the sides that images are scaled to, see `data.sizes.resized_size`.
        input_size: (height, width) of the network's input where it is fixed.
        batch_size: N where it is fixed.
        image_size: (height, width) of the images where the network scales them itself.
        channels, value_range, orientation: how files become pixels, see `data.reading.Reading`.
        box_extent: see `structures.PixelConvention.extent`.
        tiling: {"size", "overlap", "keep_full", "merge": name, "parameters": of the rule, "fill": (C,)}; None for
            images that are looked at whole.
        mean, std, to_bgr255: the normalisation that the network holds, for information.
        architecture, precision: for information.
        weights_sha256: of the checkpoint that was exported.
        version: of the engine that wrote the file.
        measured: figures of the export (AP or agreement, drop), for information.
    """

    class_names: tuple[str, ...]
    thresholds: dict[str, float]
    default_threshold: float
    min_size: int
    max_size: int
    input_size: tuple[int, int] | None = None
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    channels: int = 3
    value_range: tuple[float, float] | None = None
    orientation: str = "auto"
    box_extent: float = 0.0
    tiling: dict[str, Any] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    to_bgr255: bool = True
    architecture: str = ""
    precision: str = "fp32"
    weights_sha256: str = ""
    version: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    format: int = CARD_FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelCard:
        """The card that `to_json` wrote.

        Raises:
            InputError: naming `source`: it is not one, or one of a newer engine.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise InputError(f"{source}: its card is not a JSON object; export the model again")
        if content.get("format") != CARD_FORMAT:
            raise InputError(f"{source}: written by another version of the engine; export the model again")
        known = {each.name for each in fields(cls)}
        try:
            made = cls(**{key: _frozen(value) for key, value in content.items() if key in known})
        except TypeError as error:
            raise InputError(f"{source}: its card is incomplete ({error}); export the model again") from None
        return made


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
