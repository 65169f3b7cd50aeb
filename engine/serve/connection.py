"""Connections of slow clients end: uvicorn itself waits for ever for the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from engine.serve.limits import Limits, busy

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class LimitedConnection(H11Protocol):
    """uvicorn's connection with a limit on their number and on the seconds between requests.

    The time runs from the start of the connection, or from the first byte after an answer, to the complete head of the
    next request. So it also ends a body that goes on after its request was refused. Between an answer and that byte,
    uvicorn's own timeout holds.
    """

    def __init__(
        self,
        limits: Limits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            refusal = busy(503, "too many connections; try again")
            head = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers.items())
            body = refusal.body()
            transport.write(
                f"HTTP/1.1 503 Service Unavailable\r\n{head}Connection: close\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            transport.close()
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self._limits.header_timeout, self._end)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        has_begun_head = bool(self.conn.trailing_data[0]) and self.cycle is None
        if has_begun_head:
            self.transport.write(_TOO_SLOW)
        self.transport.close()
