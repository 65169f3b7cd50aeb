"""The image files themselves: damaged, flat, turned, deep, of different kinds.

Shapes: n images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.examined import ExaminedSet
from engine.data.doctor.findings import MOST_EXAMPLES, Finding, declare
from engine.data.doctor.images import UNREADABLE
from engine.data.doctor.picture_facts import Look, PictureFacts
from engine.data.value_range import shown_range

_FLAT = 4  # grey levels of a thumbnail between its darkest and its brightest part

DAMAGED = declare(
    "FILE_DAMAGED",
    "warning",
    "An image file is damaged but can be decoded, perhaps with a grey area. It is used.",
    "Copy or download these files again.",
)
FLAT = declare(
    "IMAGE_FLAT",
    "warning",
    "An image has nearly one level all over: black, white or empty.",
    "Look at it; remove it if the camera failed.",
)
TURNED = declare(
    "IMAGE_TURNED",
    "note",
    "An image file has an orientation (EXIF or TIFF). It is turned upright, unless the stated size is that of the image"
    " as stored.",
    "Look at the boxes of these images (tools/draw_dataset.py); INPUT.ORIENTATION decides whether they are turned.",
)
DEEP = declare(
    "IMAGE_DEEP",
    "note",
    "Images have more than 8 bits, or floats. They are scaled to 0..255 by INPUT.VALUE_RANGE.",
    "Set INPUT.VALUE_RANGE if the range in the message is not that of your camera.",
)
RANGE = declare(
    "IMAGE_BEYOND_RANGE",
    "warning",
    "Samples of deep images lie far outside INPUT.VALUE_RANGE, or use less than a sixteenth of it.",
    "Correct INPUT.VALUE_RANGE, or leave it empty to have it measured.",
)
MIXED_DEPTH = declare(
    "IMAGE_DEPTHS_DIFFER",
    "warning",
    "Some images have 8 bits and others more, or some hold integers and others floats. One range holds for all.",
    "Convert them to one type.",
)
MIXED_CHANNELS = declare(
    "IMAGE_CHANNELS_DIFFER",
    "note",
    "Some images are grey, others colour, others have transparency. All are converted to INPUT.CHANNELS.",
    "If only one class or split has grey images, the model may learn that; convert all to one kind.",
)


@CHECKS.register("pictures")
def check_pictures(case: Case) -> Iterator[Finding]:
    """The files of each data set whose images were opened."""
    for examined in case.datasets:
        if examined.name in case.pictures:
            facts = case.pictures[examined.name]
            yield from _unusable(examined, facts)
            yield from _kinds(examined, facts)
            yield from _ranges(examined, facts, case.plan.value_range if case.plan else None)


def _unusable(examined: ExaminedSet, facts: PictureFacts) -> Iterator[Finding]:
    faulty = [k for k, look in enumerate(facts.looks) if look.fault]
    if len(faulty) > examined.num_unreadable:  # more than their headers tell
        count = len(faulty)
        examples = [examined.image(k, _reason(facts.looks[k].fault)) for k in faulty[:MOST_EXAMPLES]]
        message = f"{count} image files cannot be decoded"
        yield UNREADABLE.finding(message, count, examined.name, examples)
    damaged = [k for k, look in enumerate(facts.looks) if look.damage]
    if damaged:
        examples = [examined.image(k, facts.looks[k].damage) for k in damaged[:MOST_EXAMPLES]]
        yield DAMAGED.finding(f"{len(damaged)} image files are damaged", len(damaged), examined.name, examples)
    flat = [k for k, look in enumerate(facts.looks) if look.thumb is not None and is_flat(look)]
    if flat:
        examples = [examined.image(k, f"values {_range(facts.looks[k])}") for k in flat[:MOST_EXAMPLES]]
        yield FLAT.finding(f"{len(flat)} images are nearly one level", len(flat), examined.name, examples)


def is_flat(look: Look) -> bool:
    """Whether an image shows nothing."""
    return look.thumb is None or int(np.ptp(look.thumb)) < _FLAT or look.low == look.high


def _kinds(examined: ExaminedSet, facts: PictureFacts) -> Iterator[Finding]:
    looks, total = facts.looks, len(facts.looks)
    turned = [k for k, look in enumerate(looks) if look.orientation != 1]
    if turned:
        examples = [examined.image(k, f"orientation {looks[k].orientation}") for k in turned[:MOST_EXAMPLES]]
        message = f"{len(turned)} of {total} image files say that they are to be turned"
        yield TURNED.finding(message, len(turned), examined.name, examples)
    counts = Counter(look.channels for look in looks if look.channels)
    if len(counts) > 1:
        words = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        rare = counts.most_common()[-1][0]
        examples = [examined.image(k, rare) for k, look in enumerate(looks) if look.channels == rare]
        message = f"images store different channels: {words}"
        yield MIXED_CHANNELS.finding(message, total - counts.most_common()[0][1], examined.name, examples)
    depths = Counter(look.depth for look in looks if not look.fault)
    if len(depths) > 1:
        words = ", ".join(f"{count} {kind}" for kind, count in depths.most_common())
        rare = depths.most_common()[-1][0]
        examples = [examined.image(k, rare) for k, look in enumerate(looks) if look.depth == rare and not look.fault]
        yield MIXED_DEPTH.finding(
            f"images have samples of different types: {words}", depths[rare], examined.name, examples
        )


def _ranges(examined: ExaminedSet, facts: PictureFacts, declared: tuple[float, float] | None) -> Iterator[Finding]:
    deep = [k for k, look in enumerate(facts.looks) if look.depth != "uint8" and not look.fault]
    if not deep:
        return
    looks = [facts.looks[k] for k in deep]
    low, high = min(look.low for look in looks), max(look.high for look in looks)
    kinds = ", ".join(sorted({look.depth for look in looks}))
    scaled = f"INPUT.VALUE_RANGE is {shown_range(declared)}" if declared else "INPUT.VALUE_RANGE is measured"
    message = f"{len(deep)} images are {kinds}, values {shown_range((low, high))}; {scaled}"
    examples = [examined.image(k, f"values {_range(facts.looks[k])}") for k in deep[:MOST_EXAMPLES]]
    yield DEEP.finding(message, len(deep), examined.name, examples)
    if not declared:
        return
    span = declared[1] - declared[0]
    beyond = [
        k
        for k in deep
        if facts.looks[k].high > declared[1] + span
        or facts.looks[k].low < declared[0] - span
        or min(facts.looks[k].high, declared[1]) - max(facts.looks[k].low, declared[0]) < span / 16
    ]
    if beyond:
        message = f"{len(beyond)} images do not fit INPUT.VALUE_RANGE {shown_range(declared)}"
        examples = [examined.image(k, f"values {_range(facts.looks[k])}") for k in beyond[:MOST_EXAMPLES]]
        yield RANGE.finding(message, len(beyond), examined.name, examples)


def _range(look: Look) -> str:
    return shown_range((look.low, look.high))


def _reason(fault: str) -> str:
    """A message without its path."""
    return fault.partition(": ")[2] or fault
