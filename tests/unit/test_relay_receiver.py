"""The relay's reader of its connection to Redis: every reply in order, and one word when there will be no more."""

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError

from api.relay.receiver import Receiver

MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%b\r\n"


def message(data: bytes) -> bytes:
    return MESSAGE % (len(data), data)


class Wire:
    """A receiver at one end, its server at the other."""

    def __init__(self, transport: asyncio.Transport, server: socket.socket) -> None:
        self.server = server
        self.heard: list[Any] = []
        self.receiver = Receiver(transport, self.heard.append)

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.server, data)

    async def hears(self, count: int) -> None:
        """Waits until so many replies were handed on."""
        async with asyncio.timeout(5):
            while len(self.heard) < count:
                await asyncio.sleep(0)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    ours, server = socket.socketpair()
    server.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    wire = Wire(transport, server)
    transport.set_protocol(wire.receiver)
    yield wire
    transport.abort()
    server.close()
    wire.receiver.lost.cancel()


async def test_receiver_hands_on_every_reply_in_order(wire: Wire) -> None:
    """However the bytes are cut, each message comes whole, once, and in its place."""
    everything = b"".join(message(b"%d" % n) for n in range(20))
    for start in range(0, len(everything), 7):
        await wire.say(everything[start : start + 7])
        await asyncio.sleep(0)
    await wire.hears(20)
    assert [int(reply[2]) for reply in wire.heard] == list(range(20))


async def test_receiver_lets_others_have_their_turn(wire: Wire) -> None:
    """A thousand messages that come at once hold up nobody: others run while they are handed on."""
    turns = []
    await wire.say(b"".join(message(b"%d" % n) for n in range(1000)))
    async with asyncio.timeout(5):
        while len(wire.heard) < 1000:
            turns.append(len(wire.heard))
            await asyncio.sleep(0)
    assert [int(reply[2]) for reply in wire.heard] == list(range(1000))
    assert max(b - a for a, b in pairwise(turns)) < 200
    await wire.say(message(b"one more"))
    await wire.hears(1001)


@pytest.mark.parametrize(
    ("said", "error"),
    [(b"-ERR not now\r\n", ResponseError), (b"nonsense\r\n", InvalidResponse), (b"", ConnectionError)],
    ids=["error", "nonsense", "end"],
)
async def test_receiver_is_lost(wire: Wire, said: bytes, error: type[Exception]) -> None:
    """An error, bytes that are no reply, or the connection's end: `lost` tells it, and nothing more is handed on."""
    await wire.say(said + message(b"late")) if said else wire.server.close()
    async with asyncio.timeout(5):
        with pytest.raises(error):
            await wire.receiver.lost
    assert wire.heard == []


async def test_receiver_whose_listener_fails_is_lost(wire: Wire) -> None:
    """What the listener raises is told as it is: whoever serves the connection makes a new one."""
    wire.receiver._on_reply = lambda _: [][0]
    await wire.say(message(b"a"))
    async with asyncio.timeout(5):
        with pytest.raises(IndexError):
            await wire.receiver.lost


async def test_receiver_sends_commands(wire: Wire) -> None:
    """A command goes out as Redis reads it."""
    wire.receiver.send("SUBSCRIBE", b"a", b"b c")
    async with asyncio.timeout(5):
        sent = await asyncio.get_running_loop().sock_recv(wire.server, 100)
    assert sent == b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$3\r\nb c\r\n"
