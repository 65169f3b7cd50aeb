"""A data set of tiles: every view of every image of another data set, see `engine.data.tiles`.

Shapes: n images, E views of all of them together, V views of one image, M boxes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data.dataset import LabelledImages
from engine.data.neighbours import Neighbours
from engine.data.reading import Reading
from engine.data.tiles import Shown, Tiling, crop, show
from engine.data.value_range import ValueRange
from engine.errors import InputError
from engine.structures import Targets


@dataclass(frozen=True)
class TilePlan:
    """The counts of a data set of tiles.

    Attributes:
        num_images, num_tiles, num_full: images, tiles, and whole pictures beside the tiles.
        fewest, most: views of an image.
        num_empty: views without a box to train on.
        num_left_out: those of them that are left out (`DATALOADER.FILTER_EMPTY`).
        num_boxes: boxes to train on in the images.
        num_unseen: those that no view shows well enough to train on them.
        largest_unseen: longest side of these, pixels.
    """

    num_images: int
    num_tiles: int
    num_full: int
    fewest: int
    most: int
    num_empty: int
    num_left_out: int
    num_boxes: int
    num_unseen: int
    largest_unseen: float

    def line(self) -> str:
        """The counts in words, for a log."""
        total = self.num_tiles + self.num_full
        each = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        full = f" and {self.num_full} whole pictures" if self.num_full else ""
        left_out = ", which are left out" if self.num_left_out else ""
        return (
            f"{self.num_images} images become {self.num_tiles} tiles{full} ({each} per image); {self.num_empty} "
            f"({self.num_empty / max(total, 1):.0%}) have no box to train on{left_out}; an epoch is "
            f"{total - self.num_left_out}"
        )

    def fault(self) -> str | None:
        """What is lost in the tiles, and what to do; None if nothing is."""
        if not self.num_unseen:
            return None
        return (
            f"{self.num_unseen} of {self.num_boxes} boxes (sides up to {self.largest_unseen:.0f} pixels) are in no "
            "tile with enough of their area (TILING.MIN_VISIBILITY) to be trained on; raise TILING.OVERLAP or "
            "TILING.SIZE, or set TILING.KEEP_FULL True"
        )


class TiledDataset(LabelledImages):
    """One entry for each tile of each image of `images`, and for its whole picture where `tiling` keeps it.

    An image that is no larger than a tile is one tile. A narrower one is filled up to the size of a tile, so that all
    tiles have the same scale. Ids of entries are text: that of the image, `#` and the number of the tile, or `#full`.

    Images are decoded whole. Those decoded last are kept, so that the next tile of one need not decode it again, and
    `neighbours` is an order that draws the tiles of an image near each other.

    Args:
        images: what is cut.
        sizes: (n, 2) of the images, 0 where not known, by default `images.measured_sizes()`. They decide how many
            entries an image has. Where the file turns out to have another size, its own views are used, the last one
            for those that it does not have.
        fill: (C,) values beyond the border of images that are smaller than a tile.
        filter_empty: leave out entries without boxes to train on.
        kept_bytes: of decoded images that a process keeps.
    """

    def __init__(
        self,
        images: LabelledImages,
        tiling: Tiling,
        fill: Sequence[float] = (0.0, 0.0, 0.0),
        sizes: np.ndarray | None = None,
        filter_empty: bool = False,
        kept_bytes: int = 1 << 29,
    ) -> None:
        self.kept_bytes = kept_bytes
        self.images, self.tiling, self.fill = images, tiling, tuple(fill)
        self.name, self.class_names = images.name, images.class_names
        self.image_sizes = images.measured_sizes() if sizes is None else sizes
        different, which = np.unique(self.image_sizes, axis=0, return_inverse=True)
        counts = np.array([tiling.num_views(size) for size in different.tolist()], dtype=np.int64)
        self.num_views = counts[which.reshape(-1)]  # (n,)
        self._starts = np.concatenate([[0], np.cumsum(self.num_views)])
        self._entries: np.ndarray | None = None  # index -> number among all views, if some are left out
        if filter_empty:
            self._entries = np.flatnonzero(self._box_counts > 0)
        self._opened: OrderedDict[int, tuple[np.ndarray, Targets]] = OrderedDict()
        self._failed: tuple[int, str] | None = None  # the image that could not be read last, and why

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded images: a spawned loader worker decodes its own."""
        return {**vars(self), "_opened": OrderedDict()}

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._entries is None else len(self._entries)

    @property
    def value_range(self) -> ValueRange | None:
        return self.images.value_range

    @value_range.setter
    def value_range(self, value_range: ValueRange | None) -> None:
        self.images.value_range = value_range

    @property
    def reading(self) -> Reading:
        return self.images.reading

    @property
    def image_of(self) -> np.ndarray:
        """(len,) int64: the index in `images` of the image that each entry is cut from, ascending."""
        every = np.repeat(np.arange(len(self.num_views)), self.num_views)
        return every if self._entries is None else every[self._entries]

    def neighbours(self) -> Neighbours | None:
        """How to draw tiles; None if a process keeps all images, or if it keeps none."""
        num_bytes = self.image_sizes.astype(np.int64).prod(1) * len(self.fill) * (4 if self.value_range else 1)  # (n,)
        if not self.kept_bytes or num_bytes.sum() <= self.kept_bytes:
            return None
        at_once = max(self.kept_bytes // max(int(np.quantile(num_bytes, 0.9)), 1), 1)  # a few are larger
        return Neighbours(self.image_of, int(at_once))

    @cached_property
    def sizes(self) -> np.ndarray:
        """(len, 2) int32 (height, width) of the entries."""
        sizes = np.full((self._starts[-1], 2), self.tiling.size, dtype=np.int32)
        is_unknown = (self.image_sizes == 0).any(1)
        has_full = (self.num_views > 1) & self.tiling.keep_full
        whole = is_unknown | has_full
        sizes[self._starts[1:][whole] - 1] = self.image_sizes[whole]
        return sizes if self._entries is None else sizes[self._entries]

    def measured_sizes(self) -> np.ndarray:
        return self.sizes

    def num_unreadable(self) -> int:
        return self.images.num_unreadable()

    def locate(self, index: int) -> tuple[int, int]:
        """The index in `images` of the image that an entry is cut from, and the number of the view."""
        entry = index if self._entries is None else int(self._entries[index])
        image = int(np.searchsorted(self._starts, entry, side="right")) - 1
        return image, entry - int(self._starts[image])

    def image_id(self, index: int) -> str:
        image, view = self.locate(index)
        count = int(self.num_views[image])
        is_full = self.tiling.has_full(count) and view == count - 1
        return f"{self.images.image_id(image)}#{'full' if is_full else view}"

    def image_path(self, index: int) -> Path | None:
        return self.images.image_path(self.locate(index)[0])

    def num_boxes(self, index: int) -> int:
        entry = index if self._entries is None else self._entries[index]
        return int(self._box_counts[entry])

    def labels(self, index: int) -> np.ndarray:
        image, view = self.locate(index)
        targets = self._targets(image)
        if not len(targets):
            return np.zeros(0, dtype=np.int64)
        shown = self._show(targets, view)
        return targets.labels.numpy()[(shown.is_shown & ~shown.is_ignored)[0] & ~targets.ignore.numpy()]

    def repeat_of(self, index: int) -> float:
        return self.images.repeat_of(self.locate(index)[0])

    def _targets(self, image: int) -> Targets:
        height, width = self.image_sizes[image].tolist()
        return self.images.targets(image, (height, width))

    def _show(self, targets: Targets, view: int | None = None) -> Shown:
        """What the views of an image, or one of them, show of its `targets`."""
        views = self.tiling.views(targets.size)
        full = len(views) - 1 if self.tiling.has_full(len(views)) else None
        if view is not None:
            number = min(view, len(views) - 1)
            views, full = views[number : number + 1], 0 if number == full else None
        return show(targets.boxes.numpy(), views, self.tiling, full)

    @property
    def _box_counts(self) -> np.ndarray:
        return self._counted[0]

    @cached_property
    def _counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes to train on in each view, (E,) int32; the longest sides of the boxes that no view trains on, (u,)."""
        counts, unseen = np.zeros(self._starts[-1], dtype=np.int32), [np.zeros(0, dtype=np.float32)]
        for image in range(len(self.num_views)):
            if not self.images.num_boxes(image) or not self.image_sizes[image].all():
                continue
            targets = self._targets(image)
            boxes = targets[~targets.ignore]
            shown = self._show(boxes)
            is_trained = shown.is_shown & ~shown.is_ignored  # (V, M)
            counts[self._starts[image] : self._starts[image + 1]] = is_trained.sum(1)
            lost = boxes.boxes.numpy()[~is_trained.any(0)]
            unseen.append((lost[:, 2:] - lost[:, :2]).max(1, initial=0))
        return counts, np.concatenate(unseen)

    def plan(self) -> TilePlan:
        """The counts of the tiles, for a log."""
        counts, unseen = self._counted
        num_full = int(((self.num_views > 1) & self.tiling.keep_full).sum())
        num_empty = int((counts == 0).sum())
        return TilePlan(
            num_images=len(self.num_views),
            num_tiles=len(counts) - num_full,
            num_full=num_full,
            fewest=int(self.num_views.min(initial=len(counts))),
            most=int(self.num_views.max(initial=0)),
            num_empty=num_empty,
            num_left_out=num_empty if self._entries is not None else 0,
            num_boxes=sum(map(self.images.num_boxes, range(len(self.num_views)))),
            num_unseen=len(unseen),
            largest_unseen=float(unseen.max(initial=0)),
        )

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        """A view, of the type of the image, and its targets in its own pixels; see `LabelledImages.read`.

        Its `original_size` is the size of the view.
        """
        image, view = self.locate(index)
        pixels, targets = self._open(image)
        views = self.tiling.views(pixels.shape[:2])
        shown = self._show(targets, view)
        view = min(view, len(views) - 1)
        if self.tiling.has_full(len(views)) and view == len(views) - 1:
            self._opened.pop(image, None)  # given away: what it becomes part of may change it, and a copy may be large
        else:
            pixels = crop(pixels, views[view], self.tiling.size, self.fill)
        is_shown, size = torch.from_numpy(shown.is_shown[0]), pixels.shape[:2]
        return pixels, Targets(
            boxes=torch.from_numpy(shown.boxes[0])[is_shown],
            labels=targets.labels[is_shown],
            ignore=(targets.ignore | torch.from_numpy(shown.is_ignored[0]))[is_shown],
            image_id=self.image_id(index),
            size=size,
            original_size=size,
        )

    def _open(self, image: int) -> tuple[np.ndarray, Targets]:
        """`images.read`, or what it returned when the image was opened last."""
        if image in self._opened:
            self._opened.move_to_end(image)
            return self._opened[image]
        if self._failed and self._failed[0] == image:  # tiles of one image are read one after the other
            raise InputError(self._failed[1])
        self._free_room_for(image)
        try:
            opened = self.images.read(image)
        except InputError as error:
            self._failed = image, str(error)
            raise
        self._failed = None
        self._opened[image] = opened
        return opened

    def _free_room_for(self, image: int) -> None:
        """Forget what was opened longest ago until `image` has room, before it is decoded."""
        if self._opened:
            pixels = next(reversed(self._opened.values()))[0]
            height, width = self.image_sizes[image].tolist()
            needed = height * width * pixels[0, 0].nbytes
            while self._opened and needed + sum(each.nbytes for each, _ in self._opened.values()) > self.kept_bytes:
                self._opened.popitem(last=False)


def untiled(dataset: LabelledImages) -> LabelledImages:
    """The images that a data set of tiles is cut from; any other data set itself."""
    return dataset.images if isinstance(dataset, TiledDataset) else dataset
