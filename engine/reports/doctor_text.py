"""The findings of the checks of data sets as text for a console and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from engine.data.doctor import Finding
from engine.data.doctor.findings import SEVERITIES
from engine.data.summary import DataSummary
from engine.errors import printable
from engine.tables import aligned_table

_WIDTH = 110
_SHOWN = 3  # examples of a finding on the console; the files have all


def console_report(findings: Sequence[Finding], summaries: Sequence[DataSummary], looked: str) -> str:
    """The counts of the data sets, a table of all findings, and each with its examples and its remedy."""
    parts = [each.line() for each in summaries]
    if findings:
        rows = [[each.severity, each.code, printable(each.dataset), str(each.count)] for each in findings]
        parts += ["", aligned_table(["severity", "code", "data set", "count"], rows, text_columns=(0, 1, 2)), ""]
        parts += [_paragraph(each) for each in findings]
    parts.append(f"{in_words(findings)} ({looked})")
    return "\n".join(parts)


def in_words(findings: Sequence[Finding]) -> str:
    """How many findings there are of each severity.

    Example:
        >>> in_words([])
        'nothing found'
    """
    counts = Counter(each.severity for each in findings)
    words = [f"{counts[each]} {each}{'s' * (counts[each] != 1)}" for each in SEVERITIES if counts[each]]
    return ", ".join(words) or "nothing found"


def _paragraph(finding: Finding) -> str:
    where = f" {printable(finding.dataset)}:" if finding.dataset else ""
    lines = textwrap.wrap(f"{finding.code}{where} {printable(finding.message)}", _WIDTH, subsequent_indent="  ")
    examples = [printable(str(each)) for each in finding.examples[:_SHOWN]]
    for text in (f"such as {'; '.join(examples)}" * bool(examples), finding.remedy):
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, ""])


def json_report(
    findings: Sequence[Finding], summaries: Sequence[DataSummary], looked: str, config: str
) -> dict[str, Any]:
    """Everything as plain values."""
    counts = Counter(each.severity for each in findings)
    return {
        "config": config,
        "looked_at": looked,
        "counts": {each: counts[each] for each in SEVERITIES},
        "datasets": {each.name: each.record() for each in summaries},
        "findings": [each.record() for each in findings],
    }
