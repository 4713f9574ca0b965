"""The SSE response: what is queued in one send, a heartbeat in silence, and a clean end only after the run's
end.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Protocol

import structlog
from litestar import Litestar, Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api.headers import PROTECTION
from api.relay.batch import Batch, Encoder
from api.relay.follow import Follower
from api.relay.hub import Hub, Subject
from common.ids import EventId

EVENT_STREAM = "text/event-stream"
ABORT_EXTENSION = "throughline.abort"
"""Name of the ASGI extension with which a server offers to break the connection: a function without
arguments.
"""

OUTLET_EXTENSION = "throughline.outlet"
"""Name of the ASGI extension with which a server offers the Outlet of its response."""

HEARTBEAT_S = 15.0
# Without a blank line: fetch-event-source would make an empty message of it.
_OPENING = b":ok\n"
_HEARTBEAT = b": hb\n"
_HEADERS = {
    **PROTECTION,
    "content-type": EVENT_STREAM,
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}

_log = structlog.get_logger(__name__)


class Outlet(Protocol):
    """Where a response's body goes, for who has no task to wait in. ASGI's `send` is for the others."""

    def is_open(self) -> bool:
        """Whether the server takes more of the body without a wait, and there is somebody to read it."""

    def write(self, part: bytes) -> None:
        """Sends a part, not the last one, of the body; `is_open`, and there is something in it."""


class EventStream(Response[str]):
    """Streams `subject` after `cursor`, as `encoder` writes it, until the run ends or `expires_at` (Unix seconds).

    The connection is broken, never ended, when the token expires, when the process stops, and when the reader
    has taken nothing for too long (the hub cuts it). A client that leaves frees everything here at once, and cancels
    nothing.
    """

    def __init__(
        self,
        hub: Hub,
        subject: Subject,
        *,
        cursor: EventId | None,
        encoder: Encoder,
        expires_at: float,
        headers: Mapping[str, str] | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__("", status_code=200, media_type=EVENT_STREAM, headers={**_HEADERS, **(headers or {})})
        self._hub = hub
        self._follower = Follower(hub, subject, cursor, HEARTBEAT_S, whole=whole)
        self._encoder = encoder
        self._expires_at = expires_at

    def to_asgi_response(self, app: Litestar | None, request: Request[Any, Any, Any], **_: Any) -> ASGIResponse:
        return _EventStreamASGI(self._hub, self._follower, self._encoder, self._expires_at, self.headers)


class _EventStreamASGI(ASGIResponse):
    __slots__ = (
        "_abort",
        "_encoder",
        "_expires_at",
        "_follower",
        "_gone",
        "_hub",
        "_outlet",
        "_sending_since",
        "_task",
    )

    _should_set_content_length = False

    def __init__(
        self, hub: Hub, follower: Follower, encoder: Encoder, expires_at: float, headers: dict[str, str]
    ) -> None:
        super().__init__(headers=headers, status_code=200, media_type=EVENT_STREAM)
        self._hub = hub
        self._follower = follower
        self._encoder = encoder
        self._expires_at = expires_at
        self._task: asyncio.Task[Any] | None = None
        self._abort: Any = None
        self._outlet: Outlet | None = None
        self._sending_since: float | None = None
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        task = self._task = asyncio.current_task()
        assert task is not None, "a response is sent by a task"
        extensions: dict[str, Any] = scope.get("extensions") or {}
        self._abort, self._outlet = extensions.get(ABORT_EXTENSION), extensions.get(OUTLET_EXTENSION)
        departure = loop.create_task(self._await_departure(receive))
        expiry = loop.call_later(max(0, self._expires_at - time.time()), self.abort)
        self._hub.streams.add(self)
        try:
            await self._stream(send)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            task.uncancel()
        except Exception:
            # Not raised: once a response has begun, the server could only log it again.
            _log.exception("stream_failed")
            self.abort()
        finally:
            self._hub.streams.discard(self)
            expiry.cancel()
            departure.cancel()

    def abort(self) -> None:
        """Breaks the connection. Where the server offers no way to, the response is left unfinished."""
        if self._abort is not None:
            self._abort()  # The server then reports the client's departure, and `_leave` follows.
        else:
            self._leave()

    def waiting_s(self, now: float) -> float:
        """For how long the reader has taken nothing of what is being sent, in seconds."""
        return 0.0 if self._sending_since is None else now - self._sending_since

    async def _stream(self, send: Send) -> None:
        await self.start_response(send)
        await self._send(send, _OPENING + self._encoder.encode(()))
        if self._hub.closing:
            self.abort()
        async with aclosing(self._follower.batches(self._write)) as groups:
            async for batches in groups:
                frames = b"".join([batch.frames(self._encoder) for batch in batches]) if batches else _HEARTBEAT
                if frames or self._follower.ended:
                    await self._send(send, frames)

    def _write(self, batch: Batch) -> bool:
        """Whether the batch is on its way, by a server that offers it: without a task of ours to wake."""
        outlet = self._outlet
        if outlet is None or not outlet.is_open():
            return False
        frames = batch.frames(self._encoder)
        if frames:
            outlet.write(frames)
        return True

    async def _send(self, send: Send, body: bytes) -> None:
        """Returns when the server has taken the bytes, which it does while its buffer is not full."""
        self._sending_since = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": body, "more_body": not self._follower.ended})
        self._sending_since = None

    async def _await_departure(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()
