"""A client's websocket over a raw socket: the cheapest one that still notices what goes wrong."""

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from typing import cast

from common.documents.lib0 import Reader

_FINAL, _MASKED = 0x80, 0x80
_NO_MASK = b"\0\0\0\0"
"""A client has to mask what it sends; by nothing is allowed, and costs nothing."""
_ASK_ALL = b"\0\0\1\0"
_NOTHING = b"\0\1\2\0\0"
_ANSWER, _UPDATE = b"\0\1", b"\0\2"


class _Opcode(IntEnum):
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Socket(asyncio.Protocol):
    """`on_update(now_ns, message)` gets each update of the document, with its two bytes of sync message before it.

    `answer` is what the server has said to the question of what the document is.
    """

    def __init__(self, on_update: Callable[[int, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self.failure = ""
        self._on_update = on_update
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._head = b""
        self._leaving = False

    @classmethod
    async def open(
        cls, port: int, path: str, headers: dict[str, str], on_update: Callable[[int, bytes], None]
    ) -> "Socket":
        """Returns once the server has accepted. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(lambda: cls(on_update), "127.0.0.1", port)
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        socket._write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        await socket.opened
        return socket

    def ask(self) -> None:
        """Asks for all that the document says."""
        self.send(_ASK_ALL)

    def send(self, message: bytes) -> None:
        self._frame(_Opcode.BINARY, message)

    def close(self) -> None:
        self._leaving = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        if not self._leaving:
            self._fail("the server has broken the connection")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.opened.done():
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._fail(head[:200].decode(errors="replace"))
                return
            self.opened.set_result(None)
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1], at + 2
            if length >= 126:
                size = 2 if length == 126 else 8
                length = int.from_bytes(data[start : start + size]) if end - start >= size else end
                start += size
            if end - start < length:
                break
            self._take(data[at], data[start : start + length], now)
            at = start + length
        self._rest = data[at:]

    def _take(self, first: int, payload: bytes, now: int) -> None:
        match first ^ _FINAL:
            case _Opcode.BINARY:
                self._read(payload, now)
            case _Opcode.PING:
                self._frame(_Opcode.PONG, payload)
            case _Opcode.CLOSE:
                if not self._leaving:
                    self._fail(f"the server has closed: {int.from_bytes(payload[:2])} {payload[2:].decode()}")
            case _:  # A part of a message, too: no server here makes any.
                self._fail(f"a frame that begins with {first:#x}")

    def _read(self, message: bytes, now: int) -> None:
        kind = message[:2]
        if kind == _UPDATE:
            self._on_update(now, message)
        elif kind == _ANSWER:
            if not self.answer.done():
                self.answer.set_result(update_of(message))
        elif kind == b"\0\0":
            self.send(_NOTHING)
        elif message[:1] == b"\2":
            self._fail("the server has refused a change")

    def _frame(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = bytes([_FINAL | opcode, _MASKED | length])
        else:
            head = bytes([_FINAL | opcode, _MASKED | 126]) + length.to_bytes(2)
        self._write(head + _NO_MASK + payload)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        for waiting in (self.opened, self.answer):
            if not waiting.done():
                waiting.set_exception(OSError(reason))
                waiting.exception()  # Somebody may wait for the other one alone.


def update_of(message: bytes) -> bytes:
    """The update that a sync message brings."""
    return Reader(message, 2).buffer()
