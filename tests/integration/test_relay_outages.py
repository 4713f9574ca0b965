"""A relay whose Redis goes away, comes back, or says nothing any more."""

import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.relay import hub as hub_module
from api.relay import subscriber
from api.relay.hub import Hub
from common.devserver.binaries import find_valkey
from common.devserver.valkey import Valkey
from common.eventlog.log import EventLog
from common.redis import open_redis
from common.store.database import Pool
from tests.support.eventually import eventually
from tests.support.player import Player
from tests.support.relay_reader import Reader


@pytest.fixture
async def valkey() -> AsyncIterator[Valkey]:
    """A server of the test's own, which remembers what it was told before it is killed."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        path = Path(folder)
        valkey = Valkey(find_valkey(), path / "data", path, path / "log")
        await valkey.start()
        # With `everysec` a write waits while an fsync is under way, and is lost when the process is killed then.
        async with open_redis(valkey.url) as client:
            await client.config_set("appendfsync", "always")
        yield valkey
        await valkey.stop()


@pytest.fixture
async def log(valkey: Valkey) -> AsyncIterator[EventLog]:
    client = open_redis(valkey.url)
    yield EventLog(client, 600)
    await client.aclose()


@pytest.fixture
async def hub(valkey: Valkey, pool: Pool, log: EventLog) -> AsyncIterator[Hub]:
    client = open_redis(valkey.url)
    async with Hub(client, pool, log) as hub:
        yield hub
    await client.aclose()


async def kill(valkey: Valkey) -> None:
    assert valkey.child is not None
    valkey.child.send(signal.SIGKILL)
    await valkey.child.wait(5)


async def test_relay_goes_on_when_redis_is_back(valkey: Valkey, hub: Hub, pool: Pool, log: EventLog) -> None:
    """Redis is killed and started again: the client keeps its place, and misses and repeats nothing."""
    player = await Player.begin(pool, log)
    await player.tell("a")
    reader = Reader(hub, player)
    await reader.told("started", "a")
    await kill(valkey)
    await valkey.start()
    # Nobody may be subscribed at this moment, so this is found by reading the log again.
    await player.tell("b")
    await reader.told("started", "a", "b")
    await player.tell("c")
    await player.end()
    assert await reader.ended() == ["started", "a", "b", "c", "done"]
    assert reader.ids == ["1-1", "1-2", "1-3", "1-4", "1-5"]


async def test_relay_tells_ends_without_redis(
    valkey: Valkey, hub: Hub, pool: Pool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Redis down, a client is kept and learns the end from Postgres; so does one that comes meanwhile."""
    monkeypatch.setattr(hub_module, "_POLL_S", 0.2)
    player = await Player.begin(pool, log)
    reader = Reader(hub, player)
    await reader.told("started")
    await kill(valkey)
    late = Reader(hub, player)
    end = await player.end(tell_log=False)
    assert await reader.ended() == ["started", "started", "done"]
    assert await late.ended() == ["started", "done"]
    assert reader.ids == ["1-1", None, str(end)]
    assert await Reader(hub, player, None, end).ended() == ["started", "done"]
    await eventually(lambda: hub.clients == 0)


async def test_relay_waits_for_redis(valkey: Valkey, hub: Hub, pool: Pool, log: EventLog) -> None:
    """A client that comes while Redis is down gets everything once it is there."""
    player = await Player.begin(pool, log)
    await player.tell("a")
    await kill(valkey)
    reader = Reader(hub, player)
    await eventually(lambda: hub.clients == 1)
    await valkey.start()
    await reader.told("started", "a")
    await player.tell("b")
    await reader.told("started", "a", "b")
    await reader.leave()


async def test_relay_replaces_a_half_open_connection(
    valkey: Valkey, hub: Hub, pool: Pool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that says nothing, not even to a ping, is replaced; what came meanwhile is read."""
    monkeypatch.setattr(subscriber, "_PING_S", 0.1)
    player = await Player.begin(pool, log)
    reader = Reader(hub, player)
    await reader.told("started")
    client = open_redis(valkey.url)
    try:
        before = await subscriber_of(client)
        assert valkey.child is not None
        valkey.child.send(signal.SIGSTOP)
        await eventually(lambda: not hub.connected)
        valkey.child.send(signal.SIGCONT)
        await player.tell("a")
        await reader.told("started", "a")
        assert await subscriber_of(client) not in (None, before)
    finally:
        await client.aclose()
    await reader.leave()


async def test_relay_tells_many_ends_while_redis_is_silent(
    valkey: Valkey, hub: Hub, pool: Pool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once Redis is known to say nothing, nobody waits for it again: all clients learn the end from Postgres."""
    monkeypatch.setattr(subscriber, "_PING_S", 0.1)
    monkeypatch.setattr(hub_module, "_POLL_S", 0.2)
    player = await Player.begin(pool, log)
    reader = Reader(hub, player)
    await reader.told("started")
    assert valkey.child is not None
    valkey.child.send(signal.SIGSTOP)
    try:
        await eventually(lambda: not hub.connected)
        end = await player.end(tell_log=False)
        late = [Reader(hub, player, None, end) for _ in range(20)]
        for one in late:
            assert await one.ended() == ["started", "done"]
        assert await reader.ended() == ["started", "started", "done"]
    finally:
        valkey.child.send(signal.SIGCONT)


async def subscriber_of(client: object) -> object:
    """The number of the connection that subscribes."""
    connections = await client.client_list(_type="pubsub")  # type: ignore[attr-defined]
    return connections[-1]["id"] if connections else None
