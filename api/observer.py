"""Around the whole application: each request gets a name, is counted, and is written down when it has been answered."""

import re
import time
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from api.scrape import ApiScrape
from common.ids import new_id
from common.observability.tracing import note_failure, span

if TYPE_CHECKING:
    from opentelemetry.trace import Span

REQUEST_ID = b"x-request-id"

_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PROBES = ("/health/live", "/health/ready", "/metrics")
_log = structlog.get_logger(__name__)


class RequestObserver:
    """The ASGI application that `app` is behind.

    A request keeps the X-Request-Id that it came with, where that is up to 128 of A-Z a-z 0-9 . _ -, else it gets one;
    it stands in the answer's header and in everything logged for the request. With `writes_lines` each answered request
    but those of probes is a line, which names the route and never the path or the query: these may hold a ticket.
    """

    def __init__(self, app: ASGIApp, measured: ApiScrape, *, writes_lines: bool) -> None:
        self._app = app
        self._measured = measured
        self._writes_lines = writes_lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _accepted_id(scope) or new_id().hex.encode()
        bind_contextvars(request_id=request_id.decode())
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        attributes = {"http.request.method": scope["method"], "url.scheme": scope["scheme"]}
        traceparent = _header(scope, b"traceparent").decode("latin-1") or None
        with span(scope["method"], attributes, kind="server", traceparent=traceparent) as current:
            await self._observe(scope, receive, send, request_id, current)

    async def _observe(
        self, scope: HTTPScope, receive: Receive, send: Send, request_id: bytes, current: "Span | None"
    ) -> None:
        begun = time.perf_counter()
        status: int | None = None

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id)]
                self._measured.count(scope["method"], _route(scope), status, time.perf_counter() - begun)
                if current is not None:
                    _trace_answer(current, scope, status)
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            if self._writes_lines:
                _write_line(scope, status, time.perf_counter() - begun)


def _accepted_id(scope: Scope) -> bytes | None:
    sent = _header(scope, REQUEST_ID)
    return sent if _ACCEPTED.fullmatch(sent) else None


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _route(scope: HTTPScope) -> str:
    """The template, since a path would be a series of its own for each id; empty for what is no route."""
    return scope.get("path_template", "")


def _trace_answer(current: "Span", scope: HTTPScope, status: int) -> None:
    """No path and no query: these may hold a ticket, or a name that a user has chosen."""
    route = _route(scope)
    current.update_name(f"{scope['method']} {route}".rstrip())
    current.set_attribute("http.response.status_code", status)
    if route:
        current.set_attribute("http.route", route)
    if status >= 500:
        note_failure(current, str(status))


def _write_line(scope: HTTPScope, status: int | None, seconds: float) -> None:
    """`status` is None for a client that left before the answer began; a stream takes as long as it was open."""
    if scope["path"] in _PROBES:
        return
    _log.info(
        "request_answered",
        method=scope["method"],
        route=_route(scope),
        status=status,
        ms=round(seconds * 1000, 1),
        **_ids(scope),
    )


def _ids(scope: HTTPScope) -> dict[str, str]:
    """Which things the route was about. What is no UUID may be anything."""
    found = {}
    for name, value in scope.get("path_params", {}).items():
        try:
            found[name] = str(UUID(str(value)))
        except ValueError:
            continue
    return found
