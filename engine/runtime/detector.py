"""Detection in images by an exported file.

Shapes: N images, H W, C channels, D detections, V views of an image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.any_image import any_image
from engine.data.reading import Reading
from engine.data.resizing import resized, resized_size
from engine.data.tile_selection import select
from engine.data.tiles import Tiling, crop
from engine.errors import InputError, shown
from engine.layers.voting import RULES
from engine.runtime.card import FixedShape, ImageRule, ModelCard, TileRule
from engine.runtime.detections import Detections
from engine.runtime.networks import Found, Network, open_network

Image = Any
"""Whatever `engine.data.any_image.any_image` takes."""


class Detector:
    """`Detector("model.onnx")(image) -> Detections`: what the Predictor finds that the file was exported from.

    Threads may share it.

    Args:
        path: an ONNX file (run by ONNX Runtime) or an OpenVINO model (.xml, with its .bin beside it).
        threshold: one score threshold for all classes instead of those of the file.
        device: "cpu", "cuda", "cuda:1", ..., where the library has it.
        threads: of the CPU for one call; 0: as the library chooses.
        batch_size: images, or tiles, of one size that go through the network at once.

    Raises:
        InputError: the file is damaged or not one of ours, or the library or the device is not there.

    Attributes:
        card: all that the file says about itself.
        class_names: names of labels 0..K-1.
        thresholds: (K,) float32, the score from which detections of each class are kept.
    """

    def __init__(
        self,
        path: str | Path,
        threshold: float | None = None,
        device: str = "cpu",
        threads: int = 0,
        batch_size: int = 1,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise InputError(f"the score threshold must be between 0 and 1, not {threshold}")
        self.path = Path(path)
        self._arguments = self.path.absolute(), threshold, device, threads, batch_size
        network, self.card = open_network(path, device, threads)
        self.class_names = list(self.card.class_names)
        stored = self.card.thresholds if threshold is None else {}
        default = self.card.default_threshold if threshold is None else threshold
        self.thresholds = np.float32([stored.get(name, default) for name in self.class_names])
        self.reading = reading_of(self.card)
        self.batch_size = self.card.shape.batch_size or max(batch_size, 1)
        self._detect = detect_as_card_says(network, self.card, self.batch_size, str(path))

    def __call__(self, image: Image | Sequence[Image], color: str = "bgr") -> Detections | list[Detections]:
        """Detections in the coordinates of the image given, highest score first; a list for a list.

        Args:
            image: whatever `engine.data.any_image.any_image` takes (a path, an array, the bytes of a file, ...); a
                list of these.
            color: the order of the channels of arrays and tensors, "bgr" or "rgb".

        Raises:
            InputError: a file cannot be read, or the network cannot take an image.
            ValueError: it is no image.
        """
        if not isinstance(image, (list, tuple)):
            return self([image], color)[0]
        found: list[Detections] = []
        for start in range(0, len(image), self.batch_size):  # so that a long list is not held in memory
            pixels = [self.pixels(each, color) for each in image[start : start + self.batch_size]]
            found += [self.finish(each, each.size) for each in self.find(pixels)]
        return found

    def pixels(self, image: Image, color: str = "bgr") -> np.ndarray:
        """The image as pixels (H, W, C), uint8 or float32 in 0..255; see `engine.data.any_image.any_image`."""
        return any_image(image, self.reading, color)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it is its arguments: another process opens the file itself."""
        return Detector, self._arguments

    def detect(self, pixels: np.ndarray) -> Detections:
        """Detections in what `pixels` returned, so that a file is not read twice to be drawn."""
        return self.finish(self.find([pixels])[0], pixels.shape[:2])

    def find(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """All detections in what `pixels` returned, below the thresholds too.

        Images that are scaled to the same size go through the network together, at most `batch_size` at once. Others do
        not, since padding changes what a network finds.
        """
        return self._detect(images)

    # A call in parts, so that those of several images overlap: see `inference.stages`.

    def network_input(self, pixels: np.ndarray) -> np.ndarray:
        """What `pixels` returned as it is: `run` scales it."""
        return pixels

    def run(self, inputs: Sequence[np.ndarray]) -> list[Detections]:
        """As `find`."""
        return self.find(inputs)

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        """Those of `detections`, in an image of `size`, that reach the threshold of their class."""
        return detections[detections.scores >= self.thresholds[detections.labels]]


def reading_of(card: ModelCard) -> Reading:
    """How image files become what `Detector.find` takes."""
    return Reading(card.images.value_range, card.images.channels, card.images.orientation)


Detect = Callable[[Sequence[np.ndarray]], list[Detections]]
"""Images (H_i, W_i, C) -> their detections in their own pixels."""


def detect_as_card_says(network: Network, card: ModelCard, batch_size: int, name: str) -> Detect:
    """Detection in images (H_i, W_i, C) that `network` is given as `card` says: scaled, padded, in tiles.

    Args:
        batch_size: images, or tiles, of one size that it sees at once.
        name: of its file, for messages.
    """
    detect = partial(_detect_whole, network, card, batch_size, name)
    return detect if card.tiles is None else _tiled(detect, card, batch_size, name)


def _detect_whole(
    network: Network, card: ModelCard, batch_size: int, name: str, images: Sequence[np.ndarray]
) -> list[Detections]:
    """What `network` finds in each of `images`, which are scaled as the card says unless the network does it."""
    scaled = [_prepared(image, card.images, card.shape, name) for image in images]
    found: dict[int, Detections] = {}
    for indices in _groups(scaled, batch_size):
        batch = np.stack([scaled[index] for index in indices])
        sizes = np.repeat(np.int64([batch.shape[1:3]]), len(batch), axis=0)
        batch, sizes = _filled_up(batch, sizes, card.shape)
        boxes, scores, labels, counts = _checked(network(batch, sizes), len(batch), len(card.class_names), name)
        for row, index in enumerate(indices):
            end, size = int(counts[row]), scaled[index].shape[:2]
            one = Detections(boxes[row, :end], scores[row, :end], labels[row, :end], size)
            found[index] = one.resize(images[index].shape[:2], card.images.box_extent)
    return [found[index] for index in range(len(images))]


def _checked(found: Found, num_images: int, num_classes: int, name: str) -> Found:
    """What a network gave, if it is what the card promises: a damaged file may give anything."""
    boxes, scores, labels, counts = found
    most = scores.shape[-1]
    shapes = (num_images, most, 4), (num_images, most), (num_images, most), (num_images,)
    types = np.float32, np.float32, np.int64, np.int64
    is_sane = all(
        each.shape == shape and each.dtype == dtype for each, shape, dtype in zip(found, shapes, types, strict=True)
    )
    if is_sane:
        is_real = np.arange(most) < counts[:, None]  # (N, D)
        is_sane = ((counts >= 0) & (counts <= most)).all() and ((labels >= 0) & (labels < num_classes))[is_real].all()
    if not is_sane:
        raise InputError(
            f"{name}: the output of its network is not detections of its {num_classes} classes; export the model again"
        )
    return found


def _prepared(image: np.ndarray, rule: ImageRule, shape: FixedShape, name: str) -> np.ndarray:
    """An image as the network takes it, not yet padded."""
    if image.dtype != np.uint8 and rule.pixels == "uint8":
        raise InputError(
            f"{name} takes images of 8 bits, but this one has more; convert the image, or export a model that was "
            "trained on such images"
        )
    height, width = image.shape[:2]
    if shape.image_size is not None:
        if (height, width) != shape.image_size:
            raise InputError(
                f"{name} is made for images of {_shown_size(shape.image_size)} pixels, but this one has "
                f"{_shown_size((height, width))}; export a model without a fixed size of images"
            )
        return image.astype(rule.pixels, copy=False)
    size = resized_size((height, width), rule.min_size, rule.max_size)
    if shape.input_size is not None and (size[0] > shape.input_size[0] or size[1] > shape.input_size[1]):
        raise InputError(
            f"{name} takes up to {_shown_size(shape.input_size)} pixels, but this image of "
            f"{_shown_size((height, width))} is scaled to {_shown_size(size)}; export a model of that size, or one "
            "without a fixed size"
        )
    return resized(image, size).astype(rule.pixels, copy=False)


def _groups(images: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Indices of images of one size, at most `batch_size` together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    for indices in groups.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _filled_up(batch: np.ndarray, sizes: np.ndarray, shape: FixedShape) -> tuple[np.ndarray, np.ndarray]:
    """A batch (N, H, W, C) and its sizes (N, 2) with as many images and pixels as the network is fixed to."""
    height, width = shape.input_size or batch.shape[1:3]
    missing = (shape.batch_size or len(batch)) - len(batch)
    if missing or (height, width) != batch.shape[1:3]:
        more = (0, missing), (0, height - batch.shape[1]), (0, width - batch.shape[2]), (0, 0)
        batch, sizes = np.pad(batch, more), np.pad(sizes, ((0, missing), (0, 0)), mode="edge")
    return batch, sizes


def _shown_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"


def _tiled(detect: Detect, card: ModelCard, batch_size: int, name: str) -> Detect:
    """`detect` on tiles; see `inference.tiled`."""
    rule = card.tiles
    merge = _merge_rule(rule, name)
    tiling = Tiling(rule.size, rule.overlap, keep_full=rule.keep_full)

    def detect_in(image: np.ndarray) -> Detections:
        size = image.shape[:2]
        views = tiling.views(size)
        has_full = tiling.has_full(len(views))
        tiles = views[: len(views) - has_full]
        found: list[Detections] = []
        for start in range(0, len(tiles), batch_size):  # so that an image needs little more memory than its own
            found += detect([crop(image, view, rule.size, rule.fill) for view in tiles[start : start + batch_size]])
        if has_full:
            found += detect([image])
        joined = Detections.cat(found)
        number = np.repeat(np.arange(len(found)), [len(each) for each in found])  # (P,)
        boxes = joined.boxes + views[:, [0, 1, 0, 1]].astype(np.float32)[number]
        kept = select(boxes, joined.scores, joined.labels, number, views, size, tiling)
        return Detections(*merge(*kept), size).resize(size, card.images.box_extent)

    return lambda images: [detect_in(image) for image in images]


def _merge_rule(rule: TileRule, name: str) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The rule of `layers.voting` that a card names, with its parameters bound."""
    merge = RULES.get(rule.merge)
    if merge is None:
        raise InputError(f"{name}: merges tiles by {shown(rule.merge)}; the runtime has {', '.join(RULES)}")
    try:
        inspect.signature(merge).bind(None, None, None, **rule.parameters)
        numbers = [float(value) for value in rule.parameters.values()]
    except (TypeError, ValueError):
        numbers = [np.nan]
    if not np.isfinite(numbers).all():
        raise InputError(f"{name}: {rule.merge} of tiles does not take {shown(rule.parameters)}; export it again")
    return partial(merge, **rule.parameters)
