"""The bell's hearer over a real Valkey: what it makes of a connection that breaks while a bell is answered."""

import asyncio
from typing import Any, cast

import pytest
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError

from common.ids import new_id
from common.queue import QUEUE, Bell, deserialize, serialize
from tests.support.eventually import eventually
from worker import main
from worker.job import RunningRuns
from worker.main import BellWorker


class Runs:
    """Counts the bells, and always has room."""

    free = 10

    def __init__(self) -> None:
        self.answered = 0

    async def has_room(self) -> None:
        """Always."""

    async def answer_bell(self) -> None:
        self.answered += 1


async def test_bells_are_heard_however_often_redis_broke(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bell whose answer Redis breaks off gives its place back: more of them than there are places stop nothing."""
    monkeypatch.setattr(main, "_BELLS_AT_ONCE", 2)
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
    arq = ArqRedis(ConnectionPool.from_url(redis_url), serialize, deserialize, default_queue_name=QUEUE)
    hearing = asyncio.create_task(BellWorker(cast(RunningRuns, runs), arq).main())
    try:
        for number in range(1, 4):
            await Bell(redis).ring(new_id())
            await eventually(lambda number=number: runs.answered == number, 8)  # type: ignore[misc]
        assert broken > 3
    finally:
        hearing.cancel()
        await asyncio.wait({hearing})
        await arq.aclose(close_connection_pool=True)


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
