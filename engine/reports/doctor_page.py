"""The findings of the checks of data sets as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader

from engine.data.dataset import DetectionDataset
from engine.data.doctor import Finding
from engine.data.doctor.findings import SEVERITIES
from engine.data.summary import DataSummary
from engine.errors import printable
from engine.reports.doctor_text import in_words
from engine.reports.example_pictures import ExamplePictures

_MOST_PICTURES = 4  # of a finding
_MOST_CLASSES = 60
_QUALITY = 82


def page(
    findings: Sequence[Finding],
    summaries: Sequence[DataSummary],
    looked: str,
    config: str,
    datasets: Mapping[str, DetectionDataset],
) -> str:
    """The page. Names, messages and file names are escaped, so a data set cannot bring scripts into it.

    Args:
        looked: what was looked at, in words.
        config: the configuration file.
        datasets: for the pictures, by name.
    """
    pictures = ExamplePictures(datasets)
    environment = Environment(loader=PackageLoader("engine.reports", "."), autoescape=True)
    counts = Counter(each.severity for each in findings)
    return environment.get_template("doctor.html").render(
        config=printable(config),
        looked=looked,
        outcome=in_words(findings),
        counts=[(severity, counts[severity]) for severity in SEVERITIES],
        summaries=[_counted(each) for each in summaries],
        findings=[_shown(each, pictures) for each in findings],
    )


def _counted(summary: DataSummary) -> dict[str, Any]:
    most = max(summary.boxes.values(), default=0) or 1
    classes = sorted(summary.boxes.items(), key=lambda each: -each[1])
    return {
        "name": printable(summary.name),
        "images": summary.num_images,
        "empty": summary.images_without_boxes,
        "boxes": summary.num_boxes,
        "ignored": summary.ignore_regions,
        "classes": [(printable(name), count, round(100 * count / most, 1)) for name, count in classes[:_MOST_CLASSES]],
        "more": max(len(classes) - _MOST_CLASSES, 0),
    }


def _shown(finding: Finding, pictures: ExamplePictures) -> dict[str, Any]:
    drawn = []
    for example in finding.examples[:_MOST_PICTURES]:
        image = pictures.draw(example)
        if image is not None:
            drawn.append((_data_url(image), printable(str(example)), image.shape[1], image.shape[0]))
    return {
        "code": finding.code,
        "severity": finding.severity,
        "dataset": printable(finding.dataset),
        "count": finding.count,
        "message": printable(finding.message),
        "remedy": finding.remedy,
        "pictures": drawn,
        "examples": [printable(str(each)) for each in finding.examples],
    }


def _data_url(image: Any) -> str:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
