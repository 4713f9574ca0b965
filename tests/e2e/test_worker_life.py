"""A worker's life: full, without its queue."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.support.system import System, fold, ids_increase, running_system


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Servers of the test's own."""
    async with running_system() as system:
        yield system


async def test_full_worker_leaves_the_bell_to_another(system: System) -> None:
    """A worker with one place takes one run; the next is started by the other worker at once."""
    client = await system.client(await system.api())
    for _ in range(2):
        await system.worker(WORKER_MAX_RUNS="1")
    runs = [await client.start("busy", model="echo?delayMs=100&repeat=20") for _ in range(2)]
    for run in runs:
        await client.state_is(run, "running", 5)
    third = await client.start("me too")
    assert (await client.run(third))["state"] == "queued"
    await client.state_is(third, "completed", 30)


async def test_worker_outlives_a_restart_of_redis(system: System) -> None:
    """While Redis is away runs are accepted and run all the same; afterwards bells are heard again."""
    client = await system.client(await system.api())
    worker = await system.worker()
    await system.servers.embedded.valkey.stop()
    run = await client.start("without redis")
    await client.state_is(run, "completed", 20)
    await system.servers.embedded.valkey.start()
    later = await client.start("with redis again")
    assert (await client.events(later))[-1]["type"] == "done"
    assert (await client.events(run))[-1]["type"] == "done", "its end is told from Postgres"
    worker.check_running()


async def test_log_that_is_flushed_in_mid_run_is_told_again(system: System) -> None:
    """FLUSHALL costs no text: the client sees `started` and what the step has shown, then the rest."""
    client = await system.client(await system.api())
    await system.worker()
    run = await client.start("one two three", model="echo?delayMs=40&repeat=20")
    stream = await client.stream(run)
    await stream.read_until(b"three")
    async with Redis.from_url(system.servers.redis_url) as redis:
        await redis.flushall()
    frames = await stream.read_to_end(30)
    assert ids_increase(frames)
    held, end = fold([frame.event for frame in frames])
    assert end is not None
    assert end["type"] == "done"
    (answer,) = [message for message in await client.messages(run) if message["role"] == "assistant"]
    assert [message["content"] for message in held] == [answer["content"]]
    assert answer["content"].count("three") == 20
    (row,) = await _rows(system, "select crashes_total, claimed_attempt, attempt from runs")
    assert tuple(row) == (0, 1, 2), "the owner began the attempt itself"


async def test_runs_that_nobody_rang_for_are_found(system: System) -> None:
    """A bell that was lost between commit and ring costs a second."""
    client = await system.client(await system.api())
    run = await client.start("before any worker was there")
    async with Redis.from_url(system.servers.redis_url) as redis:
        await redis.flushall()
    await system.worker()
    await client.state_is(run, "completed", 10)


async def _rows(system: System, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(system.environment()["MIGRATION_DATABASE_URL"])
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
