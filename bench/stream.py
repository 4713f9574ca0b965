"""One streaming request over a raw socket: the cheapest client that still checks what it gets."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import cast

_STAMP = re.compile(rb"\d{9,}")
_TERMINAL = (b'{"type":"done"', b'{"type":"error"', b'{"type":"cancelled"')


class Stream(asyncio.Protocol):
    """Reads SSE frames from a chunked HTTP response. `on_tokens(now_ns, stamps)` gets each token's send time.

    `after` is the number of the event before the first one that is to come.
    """

    def __init__(self, on_tokens: Callable[[int, list[bytes]], None], after: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.begun = loop.create_future()
        """The first bytes of the body are there, or there will be none."""
        self.ended = loop.create_future()
        self.status = 0
        self.sent_ns = self.first_event_ns = self.first_token_ns = 0
        self.events = self.gaps = 0
        self.terminal = b""
        self._on_tokens = on_tokens
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._rest = b""
        self._frame_rest = b""
        self._last_n = after

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self.sent_ns = time.monotonic_ns()
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.status:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            self.status = int(head[9:12])
        if data and not self.begun.done():
            self.begun.set_result(None)
        if self.status != 200:
            self.terminal += data
            if data:
                self.close()
            return
        *frames, self._frame_rest = (self._frame_rest + self._dechunk(data)).split(b"\n\n")
        for frame in frames:
            self._read(frame, now)

    def _dechunk(self, data: bytes) -> bytes:
        """The body's bytes of all chunks that are complete."""
        raw, position, pieces = self._rest + data, 0, []
        while (line_end := raw.find(b"\r\n", position)) >= 0:
            size = int(raw[position:line_end], 16)
            end = line_end + 2 + size + 2
            if len(raw) < end:
                break
            pieces.append(raw[line_end + 2 : end - 2])
            position = end
            if size == 0:
                self.close()
                break
        self._rest = raw[position:]
        return b"".join(pieces)

    def _read(self, frame: bytes, now: int) -> None:
        start = frame.find(b"data: ")
        if start < 0:
            return
        if not self.first_event_ns:
            self.first_event_ns = now
        if start:
            self._check_id(frame[:start])
        self.events += 1
        payload = frame[start + 6 :]
        if payload.startswith(b'{"type":"token"'):
            self.first_token_ns = self.first_token_ns or now
            self._on_tokens(now, _STAMP.findall(payload))
        elif payload.startswith(_TERMINAL):
            self.terminal = payload

    def _check_id(self, lines: bytes) -> None:
        n = int(lines.rpartition(b"-")[2])
        self.gaps += n != self._last_n + 1
        self._last_n = n
