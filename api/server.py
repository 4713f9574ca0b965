"""uvicorn as this API needs it: streams can be broken off, and are, before the server drains."""

import asyncio
import socket
from types import FrameType

import uvicorn
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.relay.hub import Hub
from api.relay.sse import ABORT_EXTENSION

_DRAIN_S = 5
_BACKLOG = 2048


class AbortableProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests may break their connection: ASGI itself knows only clean ends."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT_EXTENSION: self.transport.abort}  # type: ignore[dict-item]


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
                loop="uvloop",
                lifespan="off",  # uvicorn only logs what goes wrong there; `serve` raises it.
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_DRAIN_S,
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
