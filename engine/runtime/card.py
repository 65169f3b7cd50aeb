"""What an exported file says about itself, so that any runtime gives the detections of the model it was made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import InputError

CARD_KEY = "engine"
"""Under which the card stands, as JSON, in the metadata of an ONNX file, the rt_info of an OpenVINO model and the extra
files of the formats of torch."""
CARD_FORMAT = 1


@dataclass(frozen=True)
class ImageRule:
    """How images become what the network takes.

    Attributes:
        min_size, max_size: limits of the sides that images are scaled to, as `INPUT.MIN_SIZE_TEST`, `MAX_SIZE_TEST`.
        channels, value_range, orientation: how files become pixels, see `data.reading.Reading`.
        box_extent: see `structures.PixelConvention.extent`.
    """

    min_size: int
    max_size: int
    channels: int = 3
    value_range: tuple[float, float] | None = None
    orientation: str = "auto"
    box_extent: float = 0.0


@dataclass(frozen=True)
class FixedShape:
    """What cannot change between calls; None where it can.

    Attributes:
        batch_size: N.
        input_size: (height, width) of the network's input.
        image_size: (height, width) of all images, which the network then scales itself.
    """

    batch_size: int | None = None
    input_size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class TileRule:
    """How large images are cut, and what becomes of the detections of all tiles; see `data.tiles.Tiling`.

    Attributes:
        size, overlap: pixels.
        keep_full: the whole picture is looked at, too.
        fill: (C,) values around images smaller than a tile.
        merge: name of the rule, a key of `layers.voting.MERGERS`; `parameters` are its arguments.
    """

    size: int
    overlap: int
    keep_full: bool
    fill: tuple[float, ...]
    merge: str
    parameters: dict[str, Any]


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
        images, shape, tiles: see there; no tiles: images are looked at whole.
        facts: for people: architecture, precision, mean, std, sha256 of the weights, version of the engine, figures.
        inference_precision: what OpenVINO computes in: f32, bf16 or f16. By itself it would take bf16 for a float32
            model where the CPU has it.
        format: of the card itself.
    """

    class_names: tuple[str, ...]
    thresholds: dict[str, float]
    default_threshold: float
    images: ImageRule
    shape: FixedShape = FixedShape()
    tiles: TileRule | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    inference_precision: str = "f32"
    format: int = CARD_FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelCard:
        """The card that `to_json` wrote.

        Raises:
            InputError: naming `source`: it is not one, or one of another version of the engine.
        """
        try:
            content = _frozen(json.loads(text))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise InputError(f"{source}: its card is not a JSON object; export the model again")
        if content.get("format") != CARD_FORMAT:
            raise InputError(f"{source}: written by another version of the engine; export the model again")
        try:
            parts = {"images": ImageRule(**content.pop("images")), "shape": FixedShape(**content.pop("shape"))}
            tiles = content.pop("tiles")
            return cls(**content, **parts, tiles=tiles and TileRule(**tiles))
        except (TypeError, KeyError) as error:
            raise InputError(f"{source}: its card is incomplete ({error}); export the model again") from None


def _frozen(value: Any) -> Any:
    """JSON lists as tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
