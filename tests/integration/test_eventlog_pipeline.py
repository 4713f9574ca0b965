"""Appends of many runs over one connection: together, each with its own answer, over a network that breaks."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from common.eventlog import script_pipeline
from common.eventlog.log import AppendResult, Batch, EventLog
from common.ids import EventId, new_id
from common.redis import REDIS_DOWN, open_redis

OPENING = Batch(1, 1, (b'{"type":"started"}',))


class Proxy:
    """Stands before Redis and loses replies: `lose` of them by hanging up, or all of them by silence."""

    def __init__(self, redis_url: str) -> None:
        self.lose = 0
        self.silent = False
        self._redis = urlsplit(redis_url)
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        if self._redis.scheme == "unix":
            redis_reader, redis_writer = await asyncio.open_unix_connection(self._redis.path)
        else:
            redis_reader, redis_writer = await asyncio.open_connection(self._redis.hostname, self._redis.port)
        try:
            while data := await reader.read(1 << 20):
                redis_writer.write(data)
                reply = await redis_reader.read(1 << 20)
                if b"EVALSHA" in data and self.silent:
                    continue
                if b"EVALSHA" in data and self.lose:
                    self.lose -= 1
                    return
                writer.write(reply)
        finally:
            writer.close()
            redis_writer.close()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    """A way to Redis that can be broken."""
    async with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def shaky_log(proxy: Proxy) -> AsyncIterator[EventLog]:
    """A log behind the proxy, connected already."""
    redis = open_redis(proxy.url)
    log = EventLog(redis, 60)
    assert await log.append(new_id(), OPENING) is AppendResult.OK
    yield log
    await redis.aclose()


async def test_appends_at_the_same_moment_share_round_trips(redis: Redis) -> None:
    """Two hundred runs that speak at once cost Redis a few reads, not two hundred."""
    log = EventLog(redis, 60)
    await log.append(new_id(), OPENING)
    before = (await redis.info("stats"))["total_reads_processed"]
    results = await asyncio.gather(*(log.append(new_id(), OPENING) for _ in range(200)))
    after = (await redis.info("stats"))["total_reads_processed"]
    assert results == [AppendResult.OK] * 200
    assert after - before < 40


async def test_appends_at_the_same_moment_have_their_own_results(redis: Redis) -> None:
    """One run's fence, loss or error says nothing about its neighbours in the pipeline."""
    log = EventLog(redis, 60)
    fenced, broken = new_id(), new_id()
    await log.append(fenced, Batch(2, 1, OPENING.events))
    await redis.set(f"run:{{{broken}}}:events", "not a stream")
    results = await asyncio.gather(
        log.append(new_id(), OPENING),
        log.append(fenced, OPENING),
        log.append(new_id(), Batch(1, 2, (b"b",))),
        log.append(broken, OPENING),
        log.append(new_id(), OPENING),
        return_exceptions=True,
    )
    assert [*results[:3], results[4]] == [
        AppendResult.OK,
        AppendResult.FENCED,
        AppendResult.LOST,
        AppendResult.OK,
    ]
    assert isinstance(results[3], REDIS_DOWN)


@pytest.mark.parametrize("turns", range(6))
async def test_append_whose_caller_is_cancelled_disturbs_nobody(redis: Redis, turns: int) -> None:
    """At whatever moment a caller gives up, the others get their answers, now and later."""
    log = EventLog(redis, 60)
    runs = [new_id() for _ in range(5)]
    callers = [asyncio.create_task(log.append(run_id, OPENING)) for run_id in runs]
    for _ in range(turns):
        await asyncio.sleep(0)
    callers[0].cancel()
    callers[2].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [results[index] for index in (1, 3, 4)] == [AppendResult.OK] * 3
    assert isinstance(results[0], asyncio.CancelledError)
    assert await log.append(runs[1], Batch(1, 2, (b"b",))) is AppendResult.OK


async def test_append_cancelled_before_it_was_sent_is_withdrawn(redis: Redis) -> None:
    """What nobody waits for any more, and what has not left, is not appended."""
    log = EventLog(redis, 60)
    run_id = new_id()
    caller = asyncio.create_task(log.append(run_id, OPENING))
    await asyncio.sleep(0)
    caller.cancel()
    assert await log.append(new_id(), OPENING) is AppendResult.OK
    assert await log.head(run_id) is None


async def test_append_with_a_lost_reply_is_repeated_and_applied_once(proxy: Proxy, shaky_log: EventLog) -> None:
    """A connection that dies after the script ran is replaced within the call; nothing is doubled."""
    run_id = new_id()
    proxy.lose = 1
    assert await shaky_log.append(run_id, OPENING) is AppendResult.OK
    assert [event.id for event in await shaky_log.read_after(run_id, None, 10)] == [EventId(1, 1)]


async def test_append_whose_replies_stay_lost_is_down_for_every_caller(proxy: Proxy, shaky_log: EventLog) -> None:
    """Each caller learns that it does not know; saying the same again later is harmless."""
    runs = [new_id() for _ in range(3)]
    proxy.lose = 2
    results = await asyncio.gather(*(shaky_log.append(run_id, OPENING) for run_id in runs), return_exceptions=True)
    assert all(isinstance(result, REDIS_DOWN) for result in results)
    assert len(set(map(id, results))) == 3
    assert await asyncio.gather(*(shaky_log.append(run_id, OPENING) for run_id in runs)) == [AppendResult.OK] * 3
    assert [len(await shaky_log.read_after(run_id, None, 10)) for run_id in runs] == [1, 1, 1]


async def test_append_to_a_silent_redis_is_down_in_time(
    proxy: Proxy, shaky_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection holds nobody up for longer than the limit, and is not used again."""
    monkeypatch.setattr(script_pipeline, "REPLY_TIMEOUT_S", 0.1)
    proxy.silent = True
    run_id = new_id()
    async with asyncio.timeout(2):
        with pytest.raises(REDIS_DOWN):
            await shaky_log.append(run_id, OPENING)
    proxy.silent = False
    assert await shaky_log.append(run_id, OPENING) is AppendResult.OK


async def test_append_to_no_redis_is_down() -> None:
    """A refused connection is an error at once, for everybody who waits."""
    redis = open_redis("redis://127.0.0.1:1")
    log = EventLog(redis, 60)
    results = await asyncio.gather(*(log.append(new_id(), OPENING) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, REDIS_DOWN) for result in results)
    await redis.aclose()
