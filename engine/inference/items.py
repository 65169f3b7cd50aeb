"""What is to be looked at: images, videos, cameras and streams, from places as users name them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.find_images import find_images
from engine.data.image_file import IMAGE_SUFFIXES, picture_name
from engine.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts")
LIVE = ("camera", "stream")
"""The kinds that have no end and do not wait for us."""


@dataclass(frozen=True)
class Item:
    """One image, video, camera or stream.

    Attributes:
        kind: "image", "video", "camera" or "stream".
        place: path, number of the camera, or address.
        name: of its picture or video below the output folder; no two items share one.
    """

    kind: str
    place: str
    name: Path

    @property
    def shown(self) -> str:
        """`place` without the password of an address; its key in records."""
        return re.sub(r"(?<=://)[^/@]*@", "", self.place)


@dataclass
class FoundItems:
    """The items of a run, in order, and a line on what was left out ("" if nothing)."""

    items: list[Item] = field(default_factory=list)
    left_out: str = ""


def kind_of(place: str) -> str:
    """What a place is by its spelling: "camera", "stream", "video", or "image" (also folders, lists and patterns).

    Example:
        >>> [kind_of(each) for each in ("0", "camera:1", "rtsp://line/1", "a.MP4", "parts", "parts/*.png")]
        ['camera', 'camera', 'stream', 'video', 'image', 'image']
    """
    if re.fullmatch(r"(camera:)?\d{1,3}", place):
        return "camera"
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", place) and not place.startswith("file://"):
        return "stream"
    return "video" if Path(place).suffix.lower() in VIDEO_SUFFIXES else "image"


def find_items(places: Sequence[str], recursive: bool = False, skip: Path | None = None) -> FoundItems:
    """The items that `places` name, each once.

    Args:
        places: those of `find_images` with lists, where videos are found like images; or one camera (`0`, `camera:0`)
            or address of a stream (`rtsp://...`). A file named like a camera is written `./0`.
        recursive, skip: see `find_images`.

    Raises:
        InputError: a place does not exist or names nothing, or a camera or stream stands beside other places.
    """
    live = [place for place in places if kind_of(place) in LIVE]
    if live and len(places) > 1:
        raise InputError(
            f"{Item('', live[0], Path()).shown} has no end: give it a run of its own, without other inputs"
        )
    if live:
        kind, place = kind_of(live[0]), live[0].removeprefix("camera:")
        return FoundItems([Item(kind, place, Path(_live_name(kind, place)))])
    found = find_images(places, recursive, skip, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES), with_lists=True)
    taken: set[str] = set()
    items = []
    for path, name in zip(found.paths, found.names, strict=True):
        is_video = kind_of(str(path)) == "video"
        output = name.with_suffix(".mp4") if is_video else image_name(name)
        items.append(Item("video" if is_video else "image", str(path), free_name(output, taken)))
    return FoundItems(items, found.summary())


def image_name(name: Path) -> Path:
    """The name of the picture of an image: with `.png` added if its suffix names no format that we write.

    Example:
        >>> image_name(Path("left/b.gif")).as_posix()
        'left/b.gif.png'
    """
    return name.parent / picture_name(name, (1, 1))


def _live_name(kind: str, place: str) -> str:
    """A file name for a camera or stream, without user and password.

    Example:
        >>> _live_name("camera", "0"), _live_name("stream", "rtsp://me:secret@line-3/cam?x=1")
        ('camera-0', 'line-3-cam-x-1')
    """
    if kind == "camera":
        return f"camera-{place}"
    rest = re.sub(r"^[^:]+://([^/@]*@)?", "", place)
    return re.sub(r"[^A-Za-z0-9.]+", "-", rest).strip("-.")[:100] or "stream"


def free_name(name: Path, taken: set[str]) -> Path:
    """`name`, with a number if it is in `taken` (`a_2.png`), to which it is added.

    Names that a file system may not tell apart (A and a, Unicode forms) count as the same.
    """
    free, number = name, 1
    while (key := unicodedata.normalize("NFC", free.as_posix()).casefold()) in taken:
        number += 1
        free = name.with_name(f"{name.stem}_{number}{name.suffix}")
    taken.add(key)
    return free


def originals(items: Sequence[Item]) -> frozenset[str]:
    """The real paths of the files among `items`."""
    return frozenset(os.path.realpath(item.place) for item in items if item.kind not in LIVE)


def number_of_frames(items: Sequence[Item]) -> int | None:
    """How many frames there will be, if that is known before they are read."""
    return len(items) if words_for(items) == "images" else None


def words_for(items: Sequence[Item]) -> str:
    """What the frames of `items` are called.

    Example:
        >>> words_for([Item("image", "a.png", Path("a.png"))]), words_for([Item("camera", "0", Path("camera-0"))])
        ('images', 'frames')
    """
    kinds = {item.kind for item in items}
    return "images" if kinds <= {"image"} else "images and frames" if "image" in kinds else "frames"
