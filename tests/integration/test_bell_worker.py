"""The bell's hearer over a real Valkey: what it makes of a connection that breaks while a bell is answered."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError

from common.ids import new_id
from common.model.run_state import Priority
from common.queue import QUEUES, Bell, deserialize, serialize
from tests.support.eventually import eventually
from worker import bells, main
from worker.bells import BellWorker
from worker.job import RunningRuns


class Runs:
    """Counts the bells, and always has room."""

    free = 10

    def __init__(self) -> None:
        self.answered: Counter[Priority] = Counter()

    async def has_room(self) -> None:
        """Always."""

    async def answer_bell(self, priority: Priority) -> None:
        self.answered[priority] += 1


@asynccontextmanager
async def hearing(redis_url: str, runs: Runs, priority: Priority) -> AsyncIterator[None]:
    """A worker's ear for one priority."""
    pool = ConnectionPool.from_url(redis_url)
    arq = ArqRedis(pool, serialize, deserialize, default_queue_name=QUEUES[priority])
    listening = asyncio.create_task(BellWorker(cast(RunningRuns, runs), arq, priority).main())
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})
        await arq.aclose(close_connection_pool=True)


async def test_bells_are_heard_however_often_redis_broke(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bell whose answer Redis breaks off gives its place back: more of them than there are places stop nothing."""
    monkeypatch.setattr(bells, "_BELLS_AT_ONCE", 2)
    watch = Pipeline.watch
    broken = 0

    async def break_off(pipeline: Any, *keys: str) -> Any:
        nonlocal broken
        broken += 1
        if broken <= 3:
            raise ConnectionError("broken")
        return await watch(pipeline, *keys)

    monkeypatch.setattr(Pipeline, "watch", break_off)
    runs = Runs()
    async with hearing(redis_url, runs, Priority.INTERACTIVE):
        for number in range(1, 4):
            await Bell(redis).ring(new_id(), Priority.INTERACTIVE)
            await eventually(lambda number=number: runs.answered.total() == number, 8)  # type: ignore[misc]
        assert broken > 3


async def test_bell_is_answered_at_once_and_once(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run waits for arq to take the job of its bell, and when it has, nothing more is claimed for it."""
    held = asyncio.Event()
    poll = BellWorker._poll_iteration

    async def poll_late(worker: BellWorker) -> None:
        if worker._answers:
            await held.wait()
        await poll(worker)

    monkeypatch.setattr(BellWorker, "_poll_iteration", poll_late)
    runs = Runs()
    async with hearing(redis_url, runs, Priority.INTERACTIVE):
        await eventually(lambda: _waits_for_a_bell(redis))
        await Bell(redis).ring(new_id(), Priority.INTERACTIVE)
        await eventually(lambda: runs.answered.total() == 1)
        assert await redis.zcard(QUEUES[Priority.INTERACTIVE]) == 1
        held.set()
        await eventually(lambda: _is_empty(redis, QUEUES[Priority.INTERACTIVE]))
    assert runs.answered.total() == 1


async def _waits_for_a_bell(redis: Redis) -> bool:
    return any(client["cmd"] == "blmpop" for client in await redis.client_list())


async def _is_empty(redis: Redis, queue: str) -> bool:
    return int(await redis.zcard(queue)) == 0


@pytest.mark.parametrize("priority", Priority)
async def test_bell_is_left_to_those_who_serve_its_priority(redis: Redis, redis_url: str, priority: Priority) -> None:
    """A worker of the other priority neither hears nor swallows it: who serves it finds it, even who comes later."""
    other = next(one for one in Priority if one is not priority)
    deaf, ear = Runs(), Runs()
    async with hearing(redis_url, deaf, other):
        await Bell(redis).ring(new_id(), priority)
        await Bell(redis).ring(new_id(), other)
        await eventually(lambda: deaf.answered == {other: 1})
        async with hearing(redis_url, ear, priority):
            await eventually(lambda: ear.answered == {priority: 1})
            await Bell(redis).ring(new_id(), priority)
            await eventually(lambda: ear.answered == {priority: 2})
    assert deaf.answered == {other: 1}


async def test_idle_worker_asks_redis_for_next_to_nothing(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands for each wait of 5 s and priority: 0.8 a second for a worker that serves both."""
    assert bells._BELL_WAIT_S == 5
    monkeypatch.setattr(bells, "_BELL_WAIT_S", 0.05)

    await redis.config_resetstat()
    async with hearing(redis_url, Runs(), Priority.INTERACTIVE), hearing(redis_url, Runs(), Priority.BACKGROUND):
        calls: dict[str, int] = {}
        async with asyncio.timeout(10):
            while calls.get("blmpop", 0) < 20:
                stats = await redis.info("commandstats")
                calls = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    asked = {name: calls[name] for name in calls.keys() - {"info", "config|resetstat", "client|setinfo"}}
    once_an_hour = asked.pop("psetex") + asked.pop("zcard")
    assert once_an_hour == 4
    assert asked.keys() == {"blmpop", "zrangebyscore"}
    assert abs(asked["blmpop"] - asked["zrangebyscore"]) <= 2


async def test_listening_goes_on_whatever_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw ends the listening over Redis, not the worker; it is begun again."""
    monkeypatch.setattr(main, "_LISTEN_AGAIN_S", 0.001)
    begun = 0

    async def listen() -> None:
        nonlocal begun
        begun += 1
        raise RuntimeError("unforeseen")

    listening = asyncio.create_task(main._persist(listen))
    await eventually(lambda: begun > 2)
    listening.cancel()
    await asyncio.wait({listening})
    assert listening.cancelled()
