"""A worker's life: full, killed, told to leave, without its queue."""

import signal
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.support.eventually import eventually
from tests.support.model_script import Call, Reply
from tests.support.system import System, fold, ids_increase, running_system

QUICK = {"LEASE_S": "2", "HEARTBEAT_S": "0.5", "SWEEP_S": "0.2"}


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


async def test_run_of_a_killed_worker_goes_on_at_another(system: System) -> None:
    """After `kill -9` the run continues from its last committed step; whoever watches sees `started` again, no gap."""
    client = await system.client(await system.api())
    doomed = await system.worker(**QUICK)
    system.models.script(Reply(calls=(Call("shout", {"word": "committed"}),)), Reply(text="slow " * 50, pause_s=0.1))
    run = await client.start("go", provider="anthropic", model="claude-test")
    stream = await client.stream(run)
    await stream.read_until(b"slow")
    await system.worker(**QUICK)
    system.models.script(Reply(text="the answer"))
    await doomed.stop(signal.SIGKILL)
    frames = await stream.read_to_end(30)
    assert ids_increase(frames)
    events = [frame.event for frame in frames]
    starts = [event for event in events if event["type"] == "started"]
    assert [event["attempt"] for event in starts] == [1, 2]
    assert [message["role"] for message in starts[1]["messages"]] == ["assistant", "tool"]
    held, end = fold(events)
    assert end is not None
    assert end["type"] == "done"
    stored = (await client.messages(run))[1:]
    assert [message["content"] for message in held] == [message["content"] for message in stored]
    calls = await _rows(system, "select state from model_calls order by started_at")
    assert [row["state"] for row in calls] == ["completed", "crashed", "completed"], "the cut call is metered"


async def test_effect_that_must_not_happen_twice_does_not(system: System) -> None:
    """A worker that dies inside an at-most-once tool leaves the outcome unknown: it is told, not repeated."""
    client = await system.client(await system.api())
    doomed = await system.worker(**QUICK)
    system.models.script(Reply(calls=(Call("pay", {"amount": 5}),)), Reply(text="I cannot tell"))
    run = await client.start("pay", provider="anthropic", model="claude-test")
    await eventually(lambda: len(system.effects_noted()) == 1, 20)
    await system.worker(**QUICK)
    await doomed.stop(signal.SIGKILL)
    events = await client.events(run)
    (result,) = [event for event in events if event["type"] == "tool_result"]
    assert (result["outcome"], result["isError"]) == ("unknown", True)
    assert events[-1]["type"] == "done"
    assert len(system.effects_noted()) == 1


async def test_run_that_kills_its_workers_is_ended(system: System) -> None:
    """Three workers are enough: then the run fails with `crash_loop`."""
    client = await system.client(await system.api())
    worker = await system.worker(**QUICK)
    system.models.script(Reply(calls=(Call("die", {}),)))
    run = await client.start("die", provider="anthropic", model="claude-test")
    for number in range(1, 4):
        if number > 1:
            worker = await system.worker(**QUICK)
        await eventually(partial(_has_died, system, number), 20)
        await worker.stop()
    await system.worker(**QUICK)
    events = await client.events(run)
    assert events[-1]["error"]["code"] == "crash_loop"
    assert (await client.run(run))["state"] == "failed"


async def test_worker_that_is_told_to_leave_hands_its_runs_back(system: System) -> None:
    """SIGTERM: the current step is finished, the run goes on elsewhere, nothing counts as a crash."""
    client = await system.client(await system.api())
    leaving = await system.worker()
    system.models.script(
        Reply(text="let me", calls=(Call("shout", {"word": "x"}),), pause_s=0.1), Reply(text="the end")
    )
    run = await client.start("go", provider="anthropic", model="claude-test")
    stream = await client.stream(run)
    await stream.read_until(b'"type":"token"')
    assert await leaving.stop() == 0
    await system.worker()
    events = [frame.event for frame in await stream.read_to_end(30)]
    assert [event["attempt"] for event in events if event["type"] == "started"] == [1, 2]
    assert events[-1]["type"] == "done"
    assert [event for event in events if event["type"] == "discarded"] == []
    (row,) = await _rows(system, "select crashes_total, attempt from runs")
    assert tuple(row) == (0, 2)


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


def _has_died(system: System, times: int) -> bool:
    return len(system.effects_noted()) == times


async def _rows(system: System, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(system.environment()["MIGRATION_DATABASE_URL"])
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
