"""The images in the body of a request: raw bytes, multipart, or JSON with base64. Nothing in it is taken for a path."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from engine.errors import shown
from engine.serve.limits import MEGABYTE, Limits, Refusal

RAW = ("", "application/octet-stream")
HOW = 'send the bytes of an image with its type (image/jpeg), multipart/form-data, or JSON {"images": [base64, ...]}'


class Upload(NamedTuple):
    """An image as it came: the name that the client gave it, if any, and the bytes of the file."""

    name: str | None
    data: bytes


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The images of a request, at least one.

    Raises:
        Refusal: 400 malformed, 408 too slow, 413 too large, 415 of a type that holds no images.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_raw = media_type in RAW or media_type.startswith("image/")
    if not (is_raw or media_type in ("multipart/form-data", "application/json")):
        raise Refusal(415, f"the content type {shown(media_type)} holds no images; {HOW}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "compressed bodies are not taken; send the image as it is")
    body = await read_body(request, limits)
    if not body:
        raise Refusal(400, f"the body is empty; {HOW}")
    if is_raw:
        return [Upload(None, body)]
    if media_type == "application/json":
        uploads = await asyncio.to_thread(_from_json, body)
    else:
        uploads = await _from_form(request, body, limits)
    if len(uploads) > limits.max_queue:
        raise Refusal(413, f"{len(uploads)} images in a request are more than {limits.max_queue}; send fewer at once")
    return uploads


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, which is refused as soon as it is known to be too large, before all of it is read."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    try:
        return await asyncio.wait_for(_joined(request, limits), limits.timeout)
    except asyncio.TimeoutError:
        raise Refusal(408, f"the body did not arrive within {limits.timeout:g} seconds; send it faster") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection ended before the body did") from None


async def _joined(request: Request, limits: Limits) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.max_bytes:
            raise _too_large(limits)
    return bytes(body)


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, f"the body has more than {limits.max_bytes / MEGABYTE:g} megabytes; send fewer images, or smaller"
    )


def _from_json(body: bytes) -> list[Upload]:
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    images: Any = None
    if isinstance(content, dict) and len(content) == 1:
        images = [content["image"]] if "image" in content else content.get("images")
    if not isinstance(images, list) or not images or not all(isinstance(each, str) for each in images):
        raise Refusal(400, 'the JSON must be {"image": base64} or {"images": [base64, ...]}, with at least one')
    return [Upload(None, _decoded(text, index)) for index, text in enumerate(images)]


def _decoded(text: str, index: int) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"image {index} is not base64") from None


class _InMemory(MultiPartParser):
    """Starlette's parser, whose files never go to the disk: the body is in memory already."""

    spool_max_size = 0  # of SpooledTemporaryFile: no limit
    has_ended = False

    def on_end(self) -> None:
        self.has_ended = True


async def _from_form(request: Request, body: bytes, limits: Limits) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, stream(), max_files=limits.max_queue, max_fields=limits.max_queue)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError) as error:
        reason = getattr(error, "message", "") or "damaged"
        raise Refusal(400, f"the multipart body cannot be read ({reason}); send each image as a file") from None
    if not parser.has_ended:
        raise Refusal(400, "the multipart body ends before its last boundary")
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            raise Refusal(400, f"the field {shown(name)} is not a file; options stand in the address: ?threshold=0.5")
    uploads = [Upload(file.filename, await file.read()) for _, file in form.multi_items()]
    if not uploads:
        raise Refusal(400, "the multipart body holds no file; send each image as a file")
    return uploads
