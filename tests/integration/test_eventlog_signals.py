"""The signal that a run is asked to cancel."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from common.eventlog import signals
from common.eventlog.keys import cancel_channel
from common.eventlog.signals import publish_cancel, subscribe_cancels
from common.ids import new_id
from tests.support.eventually import eventually


@pytest.fixture
async def heard(redis: Redis) -> AsyncIterator[list[object]]:
    """What a worker hears, once it listens."""
    heard: list[object] = []

    async def listen() -> None:
        async for run_id in subscribe_cancels(redis):
            heard.append(run_id)  # noqa: PERF401 - what is heard must be seen at once

    listener = asyncio.create_task(listen())
    await eventually(lambda: _is_listening(redis))
    yield heard
    listener.cancel()
    await asyncio.wait({listener})


async def _is_listening(redis: Redis) -> bool:
    [(_, listeners)] = await redis.pubsub_numsub(cancel_channel())
    return bool(listeners)


async def _pings(redis: Redis) -> int:
    return int((await redis.info("commandstats")).get("cmdstat_ping", {"calls": 0})["calls"])


async def _has_pinged(redis: Redis, times: int) -> bool:
    return await _pings(redis) >= times


async def test_cancel_signal_reaches_a_listening_worker(redis: Redis, heard: list[object]) -> None:
    """A worker hears each run that is asked to cancel, in order."""
    runs = [new_id(), new_id()]
    for run_id in runs:
        await publish_cancel(redis, run_id)
    await eventually(lambda: heard == runs)


async def test_cancel_signals_survive_a_dropped_connection(
    redis: Redis, heard: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its connection was cut, a worker listens again by itself."""
    monkeypatch.setattr(signals, "_RECONNECT_AFTER_S", 0.01)
    await redis.client_kill_filter(_type="pubsub")
    await eventually(lambda: _is_listening(redis))
    run_id = new_id()
    await publish_cancel(redis, run_id)
    await eventually(lambda: heard == [run_id])


async def test_cancel_signals_ping_a_silent_connection(
    redis: Redis, heard: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is no reason to stop listening as long as pings are answered."""
    monkeypatch.setattr(signals, "_PING_EVERY_S", 0.01)
    await redis.client_kill_filter(_type="pubsub")
    await eventually(lambda: _is_listening(redis), timeout_s=5)
    pings = await _pings(redis)
    await eventually(lambda: _has_pinged(redis, pings + 3))
    run_id = new_id()
    await publish_cancel(redis, run_id)
    await eventually(lambda: heard == [run_id])


async def test_cancel_signals_pass_over_what_is_none(redis: Redis, heard: list[object]) -> None:
    """Whoever publishes nonsense does not make a worker deaf."""
    run_id = new_id()
    for nonsense in (b"nonsense", b"\xff", b""):
        await redis.publish(cancel_channel(), nonsense)
    await publish_cancel(redis, run_id)
    await eventually(lambda: heard == [run_id])
