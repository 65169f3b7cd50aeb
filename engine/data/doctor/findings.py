"""What a check finds, and the codes of all findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import InputError, shown

SEVERITIES = ("error", "warning", "note")
"""error: training stops, or learns or reports something wrong; warning: likely a mistake; note: worth knowing."""
MOST_EXAMPLES = 6

CODES: dict[str, Code] = {}
"""Every declared code by its name."""


@dataclass(frozen=True)
class Example:
    """One case of a finding.

    Attributes:
        file: the image, as its data set names it, or another file; "" if there is none.
        image_id: its id in the annotation file.
        box: x, y, width, height in pixels, as written.
        text: what is particular about it.
        dataset: the data set of the image.
    """

    file: str = ""
    image_id: int | str | None = None
    box: tuple[float, float, float, float] | None = None
    text: str = ""
    dataset: str = ""

    def __str__(self) -> str:
        parts = [self.file and shown(self.file).strip("'\"")]
        parts += [f"image {shown(self.image_id)}"] if self.image_id is not None else []
        parts += [f"[{', '.join(f'{value:g}' for value in self.box)}]"] if self.box else []
        return " ".join(filter(None, [*parts, self.text]))


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        code: a name in `CODES`.
        severity: one of `SEVERITIES`.
        message: one line, without the name of the data set.
        count: how many boxes, images, files, ... it is about.
        dataset: the name of the data set; "" if it is about none, or about several.
        examples: at most `MOST_EXAMPLES`, the worst first.
        remedy: what to do.
    """

    code: str
    severity: str
    message: str
    count: int = 1
    dataset: str = ""
    examples: tuple[Example, ...] = ()
    remedy: str = ""

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        examples = [
            {name: value for name, value in vars(each).items() if value not in ("", None)} for each in self.examples
        ]
        return {**vars(self), "examples": examples}


@dataclass(frozen=True)
class Code:
    """A kind of finding: its stable name, its usual severity, what it means, and what to do about it."""

    name: str
    severity: str
    meaning: str
    remedy: str

    def finding(
        self,
        message: str,
        count: int = 1,
        dataset: str = "",
        examples: Iterable[Example] = (),
        severity: str = "",
    ) -> Finding:
        """A finding of this kind; `severity` where it is not the usual one."""
        some = tuple(examples)[:MOST_EXAMPLES]
        return Finding(self.name, severity or self.severity, message, int(count), dataset, some, self.remedy)


def declare(name: str, severity: str, meaning: str, remedy: str) -> Code:
    """Declare the code of a kind of finding.

    Raises:
        InputError: the name is taken, or there is no such severity.
    """
    if name in CODES:
        raise InputError(f"the code {name} of a finding is declared already; choose another name")
    if severity not in SEVERITIES:
        raise InputError(f"the code {name} has the severity {shown(severity)}; it must be {', '.join(SEVERITIES)}")
    CODES[name] = Code(name, severity, meaning, remedy)
    return CODES[name]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise in their order."""
    return sorted(findings, key=lambda each: SEVERITIES.index(each.severity))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that differ only in their examples, such as those of a data set used twice, become one."""
    found: dict[Finding, Finding] = {}
    for each in findings:
        found.setdefault(replace(each, examples=()), each)
    return list(found.values())
