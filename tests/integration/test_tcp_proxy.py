"""The proxy through which other tests break connections: each of its faults is what it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from common.redis import open_redis
from tests.support.eventually import eventually
from tests.support.servers import Servers
from tests.support.tcp_proxy import Mode, TcpProxy, Way

_SILENCE_S = 0.1


class Peer:
    """One side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def leave(self) -> None:
        self.writer.transport.abort()

    async def hears(self, data: bytes) -> None:
        """Exactly this comes next."""
        async with asyncio.timeout(5):
            assert await self.reader.readexactly(len(data)) == data

    async def hears_the_end(self) -> None:
        async with asyncio.timeout(5):
            assert await self.reader.read() == b""

    async def hears_a_reset(self) -> None:
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await self.reader.read()

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(_SILENCE_S):
                await self.reader.read(1)


class Network:
    """A server whose every connection is in the test's hands, and clients who reach it by way of a proxy."""

    def __init__(self, proxy: TcpProxy, stack: AsyncExitStack, taken: "asyncio.Queue[Peer]") -> None:
        self.proxy = proxy
        self.taken = taken
        self._stack = stack

    async def client(self) -> Peer:
        """A new connection to the proxy."""
        peer = Peer(*await asyncio.open_connection(self.proxy.host, self.proxy.port))
        self._stack.callback(peer.leave)
        return peer

    async def pair(self) -> tuple[Peer, Peer]:
        """A client, and the server's side of its connection."""
        client = await self.client()
        async with asyncio.timeout(5):
            return client, await self.taken.get()


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    taken: asyncio.Queue[Peer] = asyncio.Queue()
    async with AsyncExitStack() as stack:

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer)
            stack.callback(peer.leave)
            taken.put_nowait(peer)

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        stack.callback(server.close)
        proxy = await stack.enter_async_context(TcpProxy(server.sockets[0].getsockname()))
        yield Network(proxy, stack, taken)


async def test_proxy_passes_both_ways_and_counts(network: Network) -> None:
    """Bytes and ends arrive as they were sent, whatever their size."""
    client, server = await network.pair()
    large = bytes(range(256)) * 20_000
    async with asyncio.TaskGroup() as group:
        group.create_task(client.says(large))
        group.create_task(server.hears(large))
    await server.says(b"answer")
    await client.hears(b"answer")
    client.writer.write_eof()
    await server.hears_the_end()
    await server.says(b"late")
    await client.hears(b"late")
    server.writer.close()
    await client.hears_the_end()

    await eventually(lambda: network.proxy.open == 0)
    assert network.proxy.accepted == 1
    assert network.proxy.passed == {Way.REQUESTS: len(large), Way.REPLIES: len(b"answerlate")}
    assert network.proxy.swallowed == {Way.REQUESTS: 0, Way.REPLIES: 0}


async def test_proxy_drops_and_refuses(network: Network) -> None:
    """Both sides hear the end, connecting is refused; afterwards the same port works again."""
    client, server = await network.pair()
    network.proxy.switch(Mode.DROP)
    await client.hears_the_end()
    await server.hears_the_end()
    with pytest.raises(ConnectionRefusedError):
        await network.client()

    network.proxy.switch(Mode.PASS)
    client, server = await network.pair()
    await client.says(b"again")
    await server.hears(b"again")


async def test_proxy_resets(network: Network) -> None:
    """A client hears a RST, also a new one; the server never hears of the new one."""
    client, server = await network.pair()
    network.proxy.switch(Mode.RESET)
    await client.hears_a_reset()
    await server.hears_the_end()
    await (await network.client()).hears_a_reset()
    assert network.taken.empty()


async def test_proxy_as_black_hole_is_silent(network: Network) -> None:
    """Nothing passes, nobody hears that the other one has left; what is broken stays so, new connections work."""
    client, server = await network.pair()
    network.proxy.switch(Mode.BLACK_HOLE)
    late = await network.client()
    for peer in (client, late, server):
        await peer.says(b"lost")
        await peer.hears_nothing()
    assert network.taken.empty()
    await eventually(lambda: network.proxy.swallowed == {Way.REQUESTS: 8, Way.REPLIES: 4})

    network.proxy.switch(Mode.PASS)
    await client.says(b"lost")
    client.writer.close()
    await server.hears_nothing()
    await late.hears_nothing()
    client, server = await network.pair()
    await client.says(b"heard")
    await server.hears(b"heard")


async def test_proxy_leaves_clients_half_open(network: Network) -> None:
    """The server's side is closed, the client's stays open and hears nothing of it."""
    client, server = await network.pair()
    network.proxy.switch(Mode.HALF_OPEN)
    await server.hears_the_end()
    for _ in range(3):
        await client.says(b"lost")
    await client.hears_nothing()
    late = await network.client()
    await late.says(b"lost")
    await late.hears_nothing()
    assert network.taken.empty()


async def test_proxy_loses_replies(network: Network) -> None:
    """What is asked arrives, also on new connections; no answer does."""
    before = await network.pair()
    network.proxy.switch(Mode.LOSE_REPLIES)
    for client, server in (before, await network.pair()):
        await client.says(b"do it")
        await server.hears(b"do it")
        await server.says(b"done")
        await client.hears_nothing()
        client.writer.close()
        await server.hears_the_end()


async def test_proxy_loses_requests(network: Network) -> None:
    """What the server says arrives, what is asked does not."""
    client, server = await network.pair()
    network.proxy.switch(Mode.LOSE_REQUESTS)
    await client.says(b"do it")
    await server.hears_nothing()
    await server.says(b"news")
    await client.hears(b"news")


async def test_proxy_switches_one_kind_of_connection(network: Network) -> None:
    """`new` and `existing` leave the other kind alone."""
    client, server = await network.pair()
    network.proxy.switch(Mode.BLACK_HOLE, existing=False)
    await client.says(b"old")
    await server.hears(b"old")
    await (await network.client()).hears_nothing()
    network.proxy.switch(Mode.PASS)
    network.proxy.switch(Mode.DROP, new=False)
    await client.hears_the_end()
    client, server = await network.pair()
    await client.says(b"new")
    await server.hears(b"new")


async def test_proxy_delays(network: Network) -> None:
    """Each piece is held back, and their order kept."""
    client, server = await network.pair()
    network.proxy.delay_s = 2 * _SILENCE_S
    await client.says(b"one")
    await server.hears_nothing()
    await client.says(b"two")
    await server.hears(b"onetwo")


async def test_proxy_loses_the_reply_to_one_request(network: Network) -> None:
    """A request with the fragment in it arrives, its connection hears no answer; it happens once."""
    (one, server_of_one), (two, server_of_two) = await network.pair(), await network.pair()
    network.proxy.after(b"commit", Mode.LOSE_REPLIES)
    for client, server in ((two, server_of_two), (one, server_of_one)):
        await client.says(b"please commit it")
        await server.hears(b"please commit it")
        await server.says(b"committed")
    await two.hears_nothing()
    await one.hears(b"committed")


@pytest.mark.parametrize("count", [0, 3, 8])
async def test_proxy_cuts_an_answer(network: Network, count: int) -> None:
    """Exactly so many bytes arrive before the connection is closed; the next connection is whole."""
    client, server = await network.pair()
    network.proxy.cut_after(count, Way.REPLIES)
    await server.says(b"12345678")
    await client.hears(b"12345678"[:count])
    await client.hears_the_end()
    client, server = await network.pair()
    await server.says(b"12345678")
    await client.hears(b"12345678")


async def test_proxy_stands_in_front_of_redis_and_postgres(servers: Servers) -> None:
    """The URLs of the embedded servers become ones that lead through the proxy, with user and database."""
    async with TcpProxy(servers.redis_url) as proxy:
        redis = open_redis(proxy.url)
        assert await redis.ping()
        proxy.switch(Mode.DROP)
        await redis.aclose()
    async with TcpProxy(servers.database_url) as proxy:
        connection = await asyncpg.connect(proxy.url_of(servers.url_of("template1")))
        assert await connection.fetchval("select current_database()") == "template1"
        await connection.close()


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("unix:///run/valkey.sock?db=3", "redis://127.0.0.1:{port}/3"),
        ("redis://user:word@host:7000/1", "redis://user:word@127.0.0.1:{port}/1"),
        (
            "postgresql://me@/base?host=/run/pg&port=5433&ssl=disable",
            "postgresql://me@127.0.0.1:{port}/base?ssl=disable",
        ),
        ("postgresql://me:word@host/base", "postgresql://me:word@127.0.0.1:{port}/base"),
    ],
)
async def test_proxy_keeps_all_of_a_url_but_the_address(url: str, through: str) -> None:
    """User, password, database and other options are those of the upstream's URL."""
    async with TcpProxy(url) as proxy:
        assert proxy.url == through.format(port=proxy.port)
