"""uvicorn as this API needs it: streams can be broken off, and are, before the server drains."""

import asyncio
import socket
from types import FrameType
from typing import Any

import uvicorn
from litestar import Litestar
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from api.body import BODY_S
from api.collaboration.rooms import Rooms
from api.relay.hub import Hub
from api.relay.sse import ABORT_EXTENSION, OUTLET_EXTENSION

_DRAIN_S = 5
KEEP_ALIVE_S = 75
"""Seconds for which an idle connection is kept. More than load balancers and clients keep theirs (60 s mostly): a
request that they send in the moment in which we close would be lost."""
_BACKLOG = 2048

_MAX_SOCKET_MESSAGE_BYTES = 4 * 1024 * 1024
"""More than any route takes: who sends a little too much is told so by the route."""

_MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 100
_MAX_WAITING = 32
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _TooMuch(Exception):
    """A request's head, or the requests of a connection that wait, are beyond their limit."""


class AbortableProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests may break their connection: ASGI itself knows only clean ends.

    It also holds what a client may make the server keep within limits, which uvicorn does not: the size of a
    request's head, how many requests wait behind one, and how long the rest of one may take.
    """

    _running: RequestResponseCycle | None = None
    _head_bytes = 0
    _unparsed_bytes = 0  # Received since the parser last told something; most may be part of a body.
    _whole = True
    _deaf = False
    _upgraded = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_deadline()
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells only the request that came last, which may wait behind this one.
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._upgraded or self.transport.is_closing():
            return
        if self._has_large_head():
            self.send_400_response("")
        elif self._deadline is None and not (self._whole and self._is_answering()):
            self._start_deadline()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._unparsed_bytes = 0
        self._whole = False
        self._stop_deadline()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of a trailer too, which uvicorn keeps like a header. The parser leaves the space after a value in it."""
        super().on_header(name, value.rstrip(b" \t"))
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_WAITING:
            raise _TooMuch

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unparsed_bytes = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._whole = True
        self._stop_deadline()

    def send_400_response(self, msg: str) -> None:
        """Answers what cannot be parsed, which _TooMuch counts as, and closes the connection."""
        if self._is_answering():
            self.transport.abort()  # Within an answer there is no place for another one.
        elif self._has_large_head():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        extensions: dict[str, Any] = {ABORT_EXTENSION: self.transport.abort, OUTLET_EXTENSION: CycleOutlet(cycle)}
        cycle.scope["extensions"] = extensions
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Nobody has to be warned: the answer is that of HTTP/1.1, and the last one of this connection.

        The parser takes what follows, even the request's body, for the other protocol's.
        """
        self.cycle.keep_alive = False
        self._deaf = True

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's."""
        self._upgraded = True
        self._stop_deadline()
        super().handle_websocket_upgrade()

    def _count(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += size
        if self._has_large_head():
            raise _TooMuch

    def _has_large_head(self) -> bool:
        return self._head_bytes + self._unparsed_bytes > _MAX_HEAD_BYTES or len(self.headers or ()) > _MAX_HEADERS

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(BODY_S, self._end_wait)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_wait(self) -> None:
        if self._is_answering():
            self._start_deadline()  # Who needs the body answers 408; an answer that needs none goes on.
        else:
            self.transport.abort()


class CycleOutlet:
    """What `RequestResponseCycle.send` does with a part of a chunked body, where nobody has to wait."""

    __slots__ = ("_cycle", "_flow", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._transport = cycle.transport

    def is_open(self) -> bool:
        cycle = self._cycle
        return not (
            self._flow.write_paused
            or not cycle.chunked_encoding
            or cycle.disconnected
            or cycle.response_complete
            or self._transport.is_closing()
        )

    def write(self, part: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))


_BAD_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class AbortableSocket(WebSocketsSansIOProtocol):
    """A WebSocket that can be broken off: who does not read would never see its end.

    It also ends what uvicorn leaves open for ever: a request that its library cannot read, and who sends pings without
    reading the answers.
    """

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(_BAD_HANDSHAKE)
            self.transport.close()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        if self.handshake_initiated:
            super().shutdown()
        else:
            self.transport.abort()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][ABORT_EXTENSION] = self.transport.abort  # type: ignore[assignment]

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


class Server(uvicorn.Server):
    """Serves `app` until SIGTERM or SIGINT, then breaks its streams, finishes other requests, and returns.

    Streams would otherwise hold the server until its patience ends, and a clean end would tell clients that their
    runs are over. `serve` and `run` raise what the start of `app` raises.
    """

    def __init__(self, app: Litestar, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=AbortableProtocol,
                ws=AbortableSocket,
                ws_max_size=_MAX_SOCKET_MESSAGE_BYTES,
                ws_per_message_deflate=False,  # Edits are small, and a compressor for each socket is not.
                loop="uvloop",
                lifespan="off",  # uvicorn only logs what goes wrong there; `serve` raises it.
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=_DRAIN_S,
                reset_contextvars=True,  # A request that follows on the same connection is another one.
            )
        )
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with self._app.lifespan():
                await super().serve(sockets)
        except ExceptionGroup as group:
            # Litestar holds a task group around what the application opens.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs inside a signal's handler, so the loop is only told."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # Not raised again at the end: an orderly stop exits with status 0.
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort_streams)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._abort_streams()
        await super().shutdown(sockets)

    def _abort_streams(self) -> None:
        hub: Hub = self._app.state.hub
        hub.abort_streams()
        rooms: Rooms = self._app.state.rooms
        rooms.dismiss()
