"""What a data set holds, counted before a run, and what is suspicious about it.

Shapes: n images, m annotations; sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.data.dataset import LabelledImages
from engine.data.doctor import Case, ExaminedSet, Finding, examine, run_checks
from engine.data.doctor.box_pairs import repeated
from engine.data.doctor.boxes import CORNERS, RELATIVE, under_a_pixel
from engine.data.doctor.images import NO_BOXES, repeated_files, why_nothing, wrong_sizes
from engine.errors import InputError, printable
from engine.log import get_logger, warn_once

logger = get_logger(__name__)

_MOST_CLASSES = 60  # that a log line lists one by one
_USELESS = (RELATIVE.name, CORNERS.name)
"""Codes of findings that, as errors, make all boxes useless."""


@dataclass(frozen=True)
class DataSummary:
    """The counts of one data set; boxes are those that are not ignore regions.

    Attributes:
        name: of the data set.
        num_images: images in use.
        num_annotations: boxes and ignore regions in them, as written.
        boxes: class name -> boxes to train on.
        ignore_regions: crowds, and whatever else is neither positive nor negative.
        images_without_boxes: images without a box to train on.
        oddities: counts of what is odd: "without_area" and "outside" (wholly outside their image) are boxes that are
            dropped, "reaching_outside" those that are clipped to their image, "under_a_pixel" those with a side of less
            than one pixel after resizing, "repeated_boxes" those that repeat another one of their image and class;
            "repeated_files" are images of a file that is listed before, "other_sizes" those whose file does not have
            the stated size, "unreadable_files" those whose file is missing or no image.
        findings: of the checks that open no image.
        why_nothing: why there is no box to train on; "" if there is one.
    """

    name: str
    num_images: int
    num_annotations: int
    boxes: dict[str, int]
    ignore_regions: int
    images_without_boxes: int
    oddities: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    why_nothing: str = ""

    @property
    def num_boxes(self) -> int:
        """Boxes to train on."""
        return sum(self.boxes.values())

    @property
    def faults(self) -> list[str]:
        """One line for each thing that deserves a warning."""
        return [each.message for each in self.findings if each.severity != "note" and not self._is_fatal(each)]

    @property
    def mistake(self) -> str | None:
        """What makes all boxes useless, and what to do; None if nothing does."""
        return next((each.message for each in self.findings if each.code in _USELESS and self._is_fatal(each)), None)

    def _is_fatal(self, finding: Finding) -> bool:
        """Whether `check_trainable` or `report_useless` says it."""
        return finding.code == NO_BOXES.name or (finding.code in _USELESS and finding.severity == "error")

    def record(self) -> dict[str, Any]:
        """The counts as plain values, for JSON."""
        names = ("num_images", "images_without_boxes", "num_annotations", "boxes", "ignore_regions")
        return {name: getattr(self, name) for name in names} | self.oddities

    def line(self) -> str:
        """The counts in words, for a log."""
        counts = list(self.boxes.items())
        if len(counts) > _MOST_CLASSES:
            counts = sorted(counts, key=lambda each: each[1])[:10]
        classes = ", ".join(f"{printable(name)[:60]} {count}" for name, count in counts)
        if len(self.boxes) > _MOST_CLASSES:
            classes = f"{len(self.boxes)} classes, the rarest: {classes}"
        return (
            f"data set {self.name}: {self.num_images} images, {self.images_without_boxes} without boxes; "
            f"{self.num_boxes} boxes ({classes}), {self.ignore_regions} to ignore"
        )


def summarize(dataset: LabelledImages, min_size: int, max_size: int, tile_size: int = 0) -> list[DataSummary]:
    """The counts of a data set, or of each part of a `ConcatDataset`.

    Args:
        min_size: the short side that images are resized to, pixels.
        max_size: limit of their long side.
        tile_size: side of the tiles, pixels, that are resized in their place; 0 for none.
    """
    return summarize_case(Case(tuple(examine(dataset, min_size, max_size, tile_size=tile_size))))[0]


def summarize_case(case: Case) -> tuple[list[DataSummary], list[Finding]]:
    """The counts of each data set of `case` with the findings about it, and the findings about none or several."""
    findings = run_checks(case)
    names = {each.name for each in case.datasets}
    summaries = [summary_of(each, [one for one in findings if one.dataset == each.name]) for each in case.datasets]
    return summaries, [each for each in findings if each.dataset not in names]


def summary_of(examined: ExaminedSet, findings: Sequence[Finding] = ()) -> DataSummary:
    """The counts of a data set, with `findings` about it."""
    boxes = examined.boxes
    oddities = {
        "without_area": int((~boxes.has_area).sum()),
        "outside": int((boxes.has_area & boxes.is_outside).sum()),
        "reaching_outside": int((boxes.trainable & boxes.reaches_outside).sum()),
        "under_a_pixel": int(under_a_pixel(examined).sum()),
        "repeated_files": len(repeated_files(examined)),
        "repeated_boxes": int(repeated(examined).sum()),
        "other_sizes": int(wrong_sizes(examined).sum()),
        "unreadable_files": examined.num_unreadable,
    }
    return DataSummary(
        name=examined.name,
        num_images=examined.num_images,
        num_annotations=examined.num_annotations,
        boxes=dict(zip(examined.class_names, examined.per_class.tolist(), strict=True)),
        ignore_regions=examined.num_ignored,
        images_without_boxes=int((examined.boxes_per_image == 0).sum()),
        oddities=oddities,
        findings=list(findings),
        why_nothing="" if examined.num_boxes else why_nothing(examined),
    )


def report(summaries: Sequence[DataSummary]) -> None:
    """Log the counts, and a warning for each fault."""
    for summary in summaries:
        logger.info("%s", summary.line())
        for fault in summary.faults:
            warn_once(f"data set {summary.name}: {fault}")


def report_useless(summaries: Sequence[DataSummary]) -> None:
    """Warn of what `check_trainable` refuses; testing goes on."""
    for summary in summaries:
        if summary.mistake:
            warn_once(f"data set {summary.name}: {summary.mistake}")
        if not summary.num_boxes:
            warn_once(f"data set {summary.name}: there is nothing to find: {summary.why_nothing}")


def check_trainable(summaries: Sequence[DataSummary]) -> None:
    """Raise an `InputError` if there is no box to train on, or if a data set writes its boxes in another form."""
    for summary in summaries:
        if summary.mistake:
            raise InputError(f"data set {summary.name}: {summary.mistake}")
    if sum(summary.num_boxes for summary in summaries) == 0:
        reasons = "; ".join(f"data set {summary.name}: {summary.why_nothing}" for summary in summaries)
        raise InputError(f"there is no box to train on: {reasons}")
