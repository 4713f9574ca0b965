"""The project's Redis client: limits, and cancellation at any moment."""

import asyncio

import pytest
from redis.asyncio import Redis

from common.eventlog.script_pipeline import ScriptPipeline
from common.redis import REDIS_DOWN, open_redis
from tests.support.eventually import eventually


async def _ping_forever(client: Redis) -> None:
    while True:
        await client.ping()


async def test_redis_client_never_swallows_a_cancellation(redis_url: str) -> None:
    """A task that talks to Redis ends when it is cancelled, at whatever turn of a command that happens."""
    client = open_redis(redis_url)
    await client.ping()
    for turns in range(60):
        task = asyncio.create_task(_ping_forever(client))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, pending = await asyncio.wait({task}, timeout=2)
        assert not pending, f"still running after a cancellation at turn {turns}"
    await client.aclose()


async def test_redis_client_gives_up_on_a_silent_server() -> None:
    """A server that accepts and says nothing counts as down, in time."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    client = open_redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
    async with asyncio.timeout(5):
        with pytest.raises(REDIS_DOWN):
            await client.ping()
    await client.aclose()
    server.close()


async def test_redis_client_takes_bytes_as_they_are(redis_url: str) -> None:
    """Answers are not decoded: events pass through untouched."""
    client = open_redis(redis_url)
    await client.set("k", b"\xff\x00")
    assert await client.get("k") == b"\xff\x00"
    await client.aclose()


async def test_redis_client_that_is_closed_stays_closed() -> None:
    """What is still under way then (nobody waits for it any more) ends, and leaves no connection behind."""
    asked = asyncio.Event()
    ended: list[bool] = []

    async def be_slow_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(ended)
        ended.append(False)
        while data := await reader.read(10_000):
            if b"EVALSHA" in data:
                asked.set()
            if b"EVALSHA" not in data or number > 0:
                writer.write(b":1\r\n" * data.count(b"*"))
        ended[number] = True
        writer.close()

    server = await asyncio.start_server(be_slow_at_first, "127.0.0.1", 0)
    client = open_redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    before = asyncio.all_tasks()
    call = asyncio.create_task(ScriptPipeline(client, "return 1").call(["k"], [b"a"]))
    await asked.wait()
    call.cancel()

    await client.aclose()

    await eventually(lambda: asyncio.all_tasks() <= before and all(ended))
    with pytest.raises(REDIS_DOWN):
        await client.ping()
    await eventually(lambda: all(ended))
    server.close()
