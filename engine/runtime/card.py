"""What an exported file says about itself, so that any runtime gives the detections of the model it was made from."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from engine.data.value_range import MOST
from engine.errors import InputError, shown

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
        pixels: type of the images that the network takes: "uint8", or "float32" (still in 0..255) for models of images
            of more than 8 bits, which are not rounded.
    """

    min_size: int
    max_size: int
    channels: int = 3
    value_range: tuple[float, float] | None = None
    orientation: str = "auto"
    box_extent: float = 0.0
    pixels: str = "uint8"


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
        merge: name of the rule, a key of `layers.voting.RULES`; `parameters` are its arguments.
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

    The network takes `images` (N, H, W, C), uint8 (see `ImageRule.pixels`), BGR where C = 3, and `sizes`, int64 (N, 2),
    the (height, width) of each image, beyond which its pixels are ignored. It gives `boxes` float32 (N, D, 4), xyxy in
    pixels of the images given, `scores` float32 (N, D) by falling score, `labels` int64 (N, D) and `counts` int64 (N,),
    the detections that are real; D is the same for all images of a call. Normalisation is part of the network.

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
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise InputError(f"{source}: its card is not a JSON object; export the model again")
        if content.get("format") != CARD_FORMAT:
            raise InputError(f"{source}: written by another version of the engine; export the model again")
        try:
            card = _built(cls, content, "the card")
            card._check()
        except ValueError as error:
            raise InputError(f"{source}: {error}; export the model again") from None
        return card

    def _check(self) -> None:
        """Raise a `ValueError` if a value is not possible."""
        images, shape, tiles = self.images, self.shape, self.tiles
        sides = [*(shape.input_size or ()), *(shape.image_size or ()), shape.batch_size or 1]
        limits = [self.default_threshold, *self.thresholds.values()]
        facts = {
            "class_names": len(set(self.class_names)) == len(self.class_names) > 0,
            "thresholds": all(0 <= limit <= 1 for limit in limits),
            "inference_precision": self.inference_precision in ("f32", "bf16", "f16"),
            "images": 0 < images.min_size <= images.max_size
            and images.channels > 0
            and images.orientation in ("auto", "apply", "ignore")
            and images.pixels in ("uint8", "float32")
            and images.box_extent in (0, 1)
            and (images.value_range is None or -MOST <= images.value_range[0] < images.value_range[1] <= MOST),
            "shape": all(0 < side < 1 << 16 for side in sides),
            "tiles": tiles is None
            or (tiles.size > 0 and 0 <= 2 * tiles.overlap <= tiles.size and len(tiles.fill) == images.channels),
        }
        for name, is_sane in facts.items():
            if not is_sane:
                raise ValueError(f"in its card, {name} is not possible: {shown(getattr(self, name))}")


def _built(hint: Any, value: Any, where: str) -> Any:
    """What JSON gave as a value of the type `hint`, where lists are tuples; `where` names it.

    Raises:
        ValueError: it is none.

    Example:
        >>> _built(tuple[int, ...] | None, [1, 2], "sides"), _built(float, 1, "extent")
        ((1, 2), 1.0)
    """
    kinds, origin = get_args(hint), get_origin(hint)
    if hint is Any:
        return value
    if origin is UnionType:  # of a type and None
        return None if value is None else _built(kinds[0], value, where)
    if is_dataclass(hint) and isinstance(value, dict):
        hints = get_type_hints(hint)
        needed = {each.name for each in fields(hint) if each.default is MISSING and each.default_factory is MISSING}
        if odd := sorted((needed - set(value)) | (set(value) - set(hints))):
            raise ValueError(f"{where} has missing or unknown fields: {', '.join(odd)}")
        return hint(**{name: _built(hints[name], each, name) for name, each in value.items()})
    if origin is dict and isinstance(value, dict):
        return {name: _built(kinds[1], each, f"{where}.{name}") for name, each in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(kinds) == len(value):
            return tuple(_built(kind, each, where) for kind, each in zip(kinds, value, strict=True))
    if hint is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"in its card, {where} is {shown(value)}")
