"""What the OpenAPI description says of bodies and answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why there are no detections."""

    status: int
    reason: str = Field(description="the status in words")
    message: str


class Refused(BaseModel):
    """A request that was refused as a whole."""

    error: Problem


class DetectionEntry(BaseModel):
    """One box."""

    label: int = Field(description="0..K-1, as in /model")
    class_: str = Field(alias="class")
    score: float
    box: list[float] = Field(description="x1, y1, x2, y2 in pixels of the image, turned as its EXIF data say")


class ImageEntry(BaseModel):
    """What was found in one image; or, of several, why this one was refused."""

    index: int
    name: str | None = Field(description="that the client gave (multipart)")
    height: int | None = None
    width: int | None = None
    detections: list[DetectionEntry] | None = Field(None, description="highest score first")
    error: Problem | None = None


class ModelName(BaseModel):
    """Which file has answered."""

    name: str
    hash: str = Field(description="the first 16 digits of the SHA-256 of the file")


class Answer(BaseModel):
    """Detections in the images of a request, in their order."""

    model: ModelName
    milliseconds: float = Field(description="from the complete body to the answer")
    images: list[ImageEntry]


_WORDS = {
    400: "malformed, or the body is empty",
    401: "no key, or a wrong one",
    408: "the body was too slow",
    413: "too many bytes, pixels or images",
    415: "not an image of a known format",
    422: "the image is damaged, or an option is not allowed",
    429: "too many images wait; try again after Retry-After seconds",
    503: "the server starts or stops, or is too slow; try again after Retry-After seconds",
}
ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": Answer}} | {
    status: {"model": Refused, "description": words} for status, words in _WORDS.items()
}
STATE: dict[int | str, dict[str, Any]] = {
    status: {"description": words} for status, words in {200: "yes", 503: 'no; "status" says why'}.items()
}

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_JSON = {
    "oneOf": [
        {"type": "object", "required": ["image"], "properties": {"image": _BASE64}},
        {"type": "object", "required": ["images"], "properties": {"images": {"type": "array", "items": _BASE64}}},
    ]
}
_FORM = {"type": "object", "properties": {"images": {"type": "array", "items": _BINARY}}}
DETECT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": _JSON},
        },
    }
}
