"""The application: what is asked at which address."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from importlib import resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.serve.bodies import read_uploads
from engine.serve.limits import Refusal
from engine.serve.schema import ANSWERS, DETECT_BODY, STATE
from engine.serve.service import Service

DETECT = "/detect"


class Options(BaseModel):
    """What a request may ask for in its address; anything else there is refused, since it would do nothing."""

    model_config = ConfigDict(extra="forbid")
    threshold: float | None = Field(None, ge=0, le=1, description="for all classes, instead of their own thresholds")
    max_detections: int | None = Field(None, ge=1, le=100_000, description="of an image, those with the highest scores")


def create_app(service: Service, api_key: str = "") -> Application:
    """The application that answers for `service`.

    Args:
        api_key: asked for by /detect, /model and /metrics; "" for none.
    """
    app = FastAPI(
        title="Object detection", description="Images in, boxes, classes and scores out.", docs_url=None, redoc_url=None
    )
    _add_refusals(app)
    needs_key = [Depends(functools.partial(_check_key, api_key.encode()))] if api_key else []

    @app.post(DETECT, dependencies=needs_key, responses=ANSWERS, openapi_extra=DETECT_BODY, summary="Detect in images")
    async def detect(request: Request, options: Annotated[Options, Query()]) -> Response:
        service.check_open()
        uploads = await read_uploads(request, service.limits)
        return JSONResponse(await service.detect(uploads, options.threshold, options.max_detections))

    @app.get("/health", summary="Whether the process lives, and its network makes progress", responses=STATE)
    async def health() -> Response:
        is_stuck = service.seconds_in_network > service.limits.timeout
        return JSONResponse({"status": "stuck" if is_stuck else "alive"}, 503 if is_stuck else 200)

    @app.get("/ready", summary="Whether requests are answered: the model is loaded, and the server does not stop")
    async def ready() -> Response:
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503)

    @app.get("/metrics", dependencies=needs_key, summary="Figures for Prometheus, of all workers")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model", dependencies=needs_key, summary="What the model is: classes, thresholds, sizes, hash, version")
    async def model() -> Response:
        return JSONResponse(service.model.card())

    for path, file in (("/", "index.html"), ("/docs", "api.html")):
        app.add_api_route(path, functools.partial(_page, file), include_in_schema=False)
    return Application(app, service)


class Application:
    """The application with counts of what it answers.

    Attributes:
        open: a mark of each request that is being answered.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.service = service
        self.open: set[object] = set()
        self._app: ASGIApp = app
        self._paths = {getattr(route, "path", "") for route in app.routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        metrics, began, status = self.service.metrics, time.perf_counter(), "500"
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        self.open.add(watched_send)
        metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watched_send)
        finally:
            self.open.remove(watched_send)
            metrics.in_flight.dec()
            metrics.requests.labels(path, status).inc()
            if path == DETECT:
                metrics.seconds.observe(time.perf_counter() - began)


async def _check_key(key: bytes, request: Request) -> None:
    """Refuse a request without the key, in a time that says nothing about it.

    Raises:
        Refusal: 401.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode("latin-1"), key):
        words = "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
        raise Refusal(401, words, {"WWW-Authenticate": "Bearer"})


def _add_refusals(app: FastAPI) -> None:
    """Every answer that is no detection has the same form: {"error": {"status", "reason", "message"}}."""

    def answer(refusal: Refusal) -> Response:
        return Response(refusal.body(), refusal.status, dict(refusal.headers), "application/json")

    def refused(request: Request, error: Any) -> Response:
        return answer(error)

    def invalid(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        return answer(Refusal(422, f"{first['loc'][-1]}: {first['msg']}"))

    def http(request: Request, error: Any) -> Response:
        return answer(Refusal(error.status_code, str(error.detail), error.headers or {}))

    def failed(request: Request, error: Any) -> Response:
        return answer(Refusal(500, "the server failed; its log says why"))

    handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {
        Refusal: refused,
        RequestValidationError: invalid,
        HTTPException: http,
        Exception: failed,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _page(file: str) -> Response:
    text, policy = _read_page(file)
    return HTMLResponse(text, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})


@functools.cache
def _read_page(file: str) -> tuple[str, str]:
    """A page, and the policy that lets a browser run its own script and nothing else, and ask this server only."""
    text = resources.files("engine.serve").joinpath(file).read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script[1].encode() if script else b"").digest()).decode()
    return text, (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
