"""What goes out to one socket: in order, and never waited for by the room."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum

_MAX_BYTES = 8 * 1024 * 1024
_CLOSE_S = 5.0
_MAX_REASON = 40
"""Characters. The frame has room for 123 bytes."""


class Close(IntEnum):
    """Why the server closes a socket. 1000 to 1015 are the protocol's own; the rest says what HTTP would have said."""

    STOPPING = 1012
    MALFORMED = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    NOT_FOUND = 4404
    TIMEOUT = 4408
    TOO_LARGE = 4413
    TOO_MANY = 4429
    TRY_AGAIN = 4503
    TOO_SLOW = 4508


class Outbox:
    """Sends with `send`, one message after the other, and closes with `close_socket`; what does not close within
    seconds is broken off with `abort`.

    A reader that leaves more than 8 MB waiting is closed, so that one that is stuck costs nobody else anything.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        close_socket: Callable[[int, str], Awaitable[None]],
        abort: Callable[[], None],
    ) -> None:
        self._send = send
        self._close_socket = close_socket
        self._abort = abort
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._closing: tuple[Close, str] | None = None
        self.sent_at = asyncio.get_running_loop().time()

    @property
    def is_closing(self) -> bool:
        """Whether nothing that is put in now goes out any more."""
        return self._closing is not None

    def put(self, message: bytes) -> None:
        """Queues a message. A single one may be of any size."""
        if self._closing is not None:
            return
        if self._bytes > _MAX_BYTES:
            self._waiting.clear()
            self.close(Close.TOO_SLOW, "you read too slowly")
            return
        self._waiting.append(message)
        self._bytes += len(message)
        self._changed.set()

    def close(self, code: Close, reason: str) -> None:
        """Closes the socket after what is queued. The first reason counts."""
        if self._closing is None:
            self._closing = code, reason[:_MAX_REASON]
            self._changed.set()
            asyncio.get_running_loop().call_later(_CLOSE_S, self._abort)

    async def run(self) -> None:
        """Sends until closed. Raises what sending raises: the client has gone."""
        while self._waiting or self._closing is None:
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            message = self._waiting.popleft()
            await self._send(message)
            self._bytes -= len(message)
            del message  # It may be a whole document, and the next one may take long to come.
            self.sent_at = asyncio.get_running_loop().time()
        await self._close_socket(*self._closing)
