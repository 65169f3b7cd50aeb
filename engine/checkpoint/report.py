"""What happened to each tensor of a weights file and to each parameter of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

_SHOWN = 5  # names listed for each kind of mismatch


@dataclass(frozen=True)
class Reshaped:
    """A parameter with a different shape or different classes in file and model."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]
    outcome: str  # "left as initialised", "3 of 5 classes taken by name"

    def __str__(self) -> str:
        shapes = f"file {list(self.file_shape)}, model {list(self.model_shape)}"
        return f"{self.name}: {shapes}: {self.outcome}"


@dataclass
class LoadReport:
    """The outcome of `load_weights`: names of parameters and buffers."""

    source: str = ""
    format: str = ""
    matched: list[str] = field(default_factory=list)  # loaded
    missing: list[str] = field(default_factory=list)  # not in the file, so the model keeps their values
    unexpected: list[str] = field(default_factory=list)  # in the file, but not in the model
    reshaped: list[Reshaped] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # in the file, but not needed (ImageNet classifiers, counters)
    notes: list[str] = field(default_factory=list)  # one-line warnings

    @property
    def ok(self) -> bool:
        """Whether file and model have exactly the same tensors."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def backbone_only(self) -> bool:
        """Whether an ImageNet file filled the whole body, so that only the parts of the detector are new."""
        outside = not any(_is_body(name) and not _is_offset(name) for name in [*self.missing, *self.unexpected])
        return bool(self.matched) and all(map(_is_body, self.matched)) and outside and not self.reshaped

    @property
    def unset(self) -> list[str]:
        """The names of the model that got no value from the file; offsets start at 0 and are none of them."""
        shapes = {each.name for each in self.reshaped} - set(self.matched)
        return [*(name for name in self.missing if not _is_offset(name)), *sorted(shapes)]

    def summary(self) -> str:
        """The outcome in one line."""
        start = f"{self.source} ({self.format})"
        if self.ok:
            return f"{start}: all {len(self.matched)} tensors loaded"
        if self.backbone_only:
            new = sorted({"deformable offsets" if _is_offset(name) else part_of(name) for name in self.missing})
            return f"{start}: backbone.body loaded ({len(self.matched)} tensors); new: {', '.join(new) or 'nothing'}"
        counts = {kind: len(names) for kind, names in self._names().items() if kind != "ignored"}
        return f"{start}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items())

    def table(self) -> str:
        """Counts by part of the model, the first names of each kind of mismatch, and the notes."""
        counts = {kind: Counter(map(part_of, names)) for kind, names in self._names().items()}
        parts = sorted(set().union(*counts.values()))
        rows = [[part, *(counter[part] or "" for counter in counts.values())] for part in parts]
        lines = [tabulate(rows, headers=["part", *counts], tablefmt="simple")]
        if not self.backbone_only:
            lines += _first("missing in the file, not changed", self.missing)
        lines += _first("unexpected, not used", self.unexpected)
        lines += _first("different shape or classes", self.reshaped)
        return "\n".join(lines + self.notes)

    def _names(self) -> dict[str, list[str]]:
        """The names of each kind that occurs."""
        kinds = ("matched", "missing", "unexpected", "reshaped", "ignored")
        names = {kind: [getattr(each, "name", each) for each in getattr(self, kind)] for kind in kinds}
        return {kind: each for kind, each in names.items() if each}


def part_of(name: str) -> str:
    """`backbone.body.layer1.0.conv1.weight` -> `backbone.body`."""
    return ".".join(name.split(".")[:-1][:2]) or name


def _is_body(name: str) -> bool:
    return name.startswith("backbone.body.")


def _is_offset(name: str) -> bool:
    """Offsets of a deformable convolution start at zero, which makes it equal to a plain one."""
    return ".offset." in name


def _first(title: str, items: Sequence[object]) -> list[str]:
    lines = [f"  {item}" for item in items[:_SHOWN]]
    if len(items) > _SHOWN:
        lines.append(f"  ... and {len(items) - _SHOWN} more")
    return [f"{title} ({len(items)}):", *lines] if items else []
