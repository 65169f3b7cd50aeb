"""What the server takes on, and how it says no."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from engine.errors import printable

MEGABYTE = 1_000_000
RETRY_SECONDS = 1
"""What Retry-After says: a full queue moves on within a few batches, and models load within seconds."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one worker holds at a time.

    Attributes:
        max_batch: images that go through the model together.
        max_delay: seconds that an image waits for others to join its batch.
        max_queue: images accepted and not yet answered.
        max_bytes: of the body of a request.
        max_pixels: of an image (height times width, and more for more than 3 channels).
        max_connections: open at a time.
        timeout: seconds for a body to arrive, for its images to be answered, and for accepted requests to be answered
            when the server stops.
        header_timeout: seconds for a client to send the head of its next request.
    """

    max_batch: int = 8
    max_delay: float = 0.005
    max_queue: int = 64
    max_bytes: int = 32 * MEGABYTE
    max_pixels: int = 50_000_000
    max_connections: int = 256
    timeout: float = 30.0
    header_timeout: float = 10.0


@dataclass
class Refusal(Exception):
    """A request, or one image of it, that is not answered with detections.

    Attributes:
        status: of HTTP.
        message: one line for the client that says what to do.
        headers: of the answer.
    """

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def as_json(self) -> dict[str, Any]:
        """What stands in an answer under "error".

        Example:
            >>> Refusal(415, "not an image").as_json()
            {'status': 415, 'reason': 'Unsupported Media Type', 'message': 'not an image'}
        """
        return {"status": self.status, "reason": HTTPStatus(self.status).phrase, "message": printable(self.message)}

    def body(self) -> bytes:
        return json.dumps({"error": self.as_json()}, ensure_ascii=False).encode()


def busy(status: int, message: str) -> Refusal:
    """A refusal for now: the client may ask again after `RETRY_SECONDS`."""
    return Refusal(status, message, {"Retry-After": str(RETRY_SECONDS)})
