"""y-websocket's protocol byte by byte, for what no library would send, and a socket that sends it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from common.documents.lib0 import Reader, buffer, text, uint
from tests.support.documents import room_of

EMPTY_UPDATE = b"\x00\x00"
_STEP1, _STEP2, _UPDATE = range(3)
_PATIENCE_S = 15.0


class State(NamedTuple):
    """What an awareness message says of one client; `state` as it is sent."""

    client: int
    clock: int
    state: str


def step1(state: bytes = b"\x00") -> bytes:
    """Asks for all that somebody in `state`, a state vector, lacks."""
    return b"\x00\x00" + buffer(state)


def step2(update: bytes) -> bytes:
    return b"\x00\x01" + buffer(update)


def update_message(update: bytes) -> bytes:
    return b"\x00\x02" + buffer(update)


def awareness_message(states: Iterable[State]) -> bytes:
    states = list(states)
    entries = [uint(each.client) + uint(each.clock) + text(each.state) for each in states]
    return b"\x01" + buffer(uint(len(states)) + b"".join(entries))


def update(client: int, clock: int, items: Sequence[bytes], deletes: bytes = b"\x00") -> bytes:
    """An update with the items of one client."""
    return uint(1) + uint(len(items)) + uint(client) + uint(clock) + b"".join(items) + deletes


def string_item(
    value: str | bytes,
    *,
    left: tuple[int, int] | None = None,
    right: tuple[int, int] | None = None,
    root: str = "content",
) -> bytes:
    """A piece of text: between `left` and `right`, each a client and a clock, else at the start of `root`."""
    return item(4, buffer(value.encode() if isinstance(value, str) else value), left=left, right=right, root=root)


def item(
    content_type: int,
    content: bytes,
    *,
    left: tuple[int, int] | None = None,
    right: tuple[int, int] | None = None,
    root: str = "content",
    key: str | None = None,
) -> bytes:
    """An item of any content. `key` makes it an attribute of its root."""
    info = content_type | (0x80 if left else 0) | (0x40 if right else 0) | (0x20 if key is not None else 0)
    place = b"".join(uint(client) + uint(clock) for client, clock in filter(None, (left, right)))
    if not place:
        place = uint(1) + text(root) + (b"" if key is None else text(key))
    return bytes([info]) + place + content


def delete_set(client: int, *ranges: tuple[int, int]) -> bytes:
    """Deletions: of one client's items, each from a clock and so many."""
    return uint(1) + uint(client) + uint(len(ranges)) + b"".join(uint(at) + uint(count) for at, count in ranges)


class RawSync:
    """A connection on which anything can be said."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.denials: list[str] = []

    async def send(self, *frames: bytes | str) -> None:
        """Sends frames one after the other; what follows a close is lost, as it would be."""
        try:
            for frame in frames:
                await self.socket.send(frame)
        except ConnectionClosed:
            return

    async def next_update(self, timeout_s: float = _PATIENCE_S) -> bytes:
        """The update that the next answer to a SyncStep1, or the next broadcast, holds."""
        async with asyncio.timeout(timeout_s):
            while True:
                reader = Reader(await self._next())
                if reader.uint() == 0 and reader.uint() in (_STEP2, _UPDATE):
                    return reader.buffer()

    async def whole_document(self) -> bytes:
        """As an update; proves that what was sent before has been read and that the connection lives."""
        await self.send(step1())
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                reader = Reader(await self._next())
                if reader.uint() == 0 and reader.uint() == _STEP2:
                    return reader.buffer()

    async def is_read(self) -> None:
        """Waits until what was sent has been read: an answer to a SyncStep1 has come, or a close."""
        with suppress(ConnectionClosed):
            await self.whole_document()

    async def close_code(self, timeout_s: float = _PATIENCE_S) -> tuple[int, str]:
        """The code and the reason with which the other side closes."""
        async with asyncio.timeout(timeout_s):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as closed:
                # A side that answers a broken frame with a close says so in what it sent.
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

    async def _next(self) -> bytes:
        frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        if frame[0] == 2:
            reader = Reader(frame, 2)
            self.denials.append(reader.text())
        return frame


@asynccontextmanager
async def raw_sync(
    url: str,
    document: str,
    *,
    query: str = "",
    headers: dict[str, str] | None = None,
    **given: Any,
) -> AsyncIterator[RawSync]:
    """A connection to the room of a document, at the API at `url`. Nothing is said on it yet."""
    given = {"compression": None, "max_size": None, "proxy": None, **given}
    uri = f"{room_of(url, document)}/sync{query}"
    async with connect(uri, additional_headers=headers, close_timeout=2, **given) as socket:
        yield RawSync(socket)


def first_message(token: str, **more: Any) -> str:
    """What an application says that sends its token in the first message."""
    return msgspec.json.encode({"token": token, **more}).decode()
