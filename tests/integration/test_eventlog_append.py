"""The append script's rules, one by one, against a real Valkey."""

import asyncio
from uuid import UUID

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from common.eventlog.keys import events_key, head_key, live_channel
from common.eventlog.log import AppendResult, Batch, EventLog, LogEvent
from common.eventlog.publication import MAX_BATCH_BYTES, Publication, parse_publication
from common.ids import EventId, new_id
from common.redis import REDIS_DOWN

STARTED = b'{"type":"started"}'
TTL_S = 3600


@pytest.fixture
def log(redis: Redis) -> EventLog:
    """A log on an empty Valkey."""
    return EventLog(redis, TTL_S)


@pytest.fixture
async def run_id(log: EventLog) -> UUID:
    """A run whose second attempt has begun and said two more things: head 2-3."""
    run_id = new_id()
    assert await log.append(run_id, Batch(2, 1, (STARTED,))) is AppendResult.OK
    assert await log.append(run_id, Batch(2, 2, (b"b", b"c"))) is AppendResult.OK
    return run_id


async def _ids(log: EventLog, run_id: UUID) -> list[str]:
    return [str(event.id) for event in await log.read_after(run_id, None, 100)]


async def test_append_continues_where_the_head_stands(log: EventLog, run_id: UUID) -> None:
    """Events get the ids that their batch names, in order, and the head moves to the last."""
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.OK
    assert await log.read_after(run_id, None, 100) == [
        LogEvent(EventId(2, 1), STARTED),
        LogEvent(EventId(2, 2), b"b"),
        LogEvent(EventId(2, 3), b"c"),
        LogEvent(EventId(2, 4), b"d"),
    ]
    assert await log.head(run_id) == EventId(2, 4)


async def test_read_after_is_exclusive_and_limited(log: EventLog, run_id: UUID) -> None:
    """Reading goes on right after the cursor, also one that the stream does not know, and stops at the limit."""
    assert [event.data for event in await log.read_after(run_id, EventId(2, 1), 1)] == [b"b"]
    assert [event.data for event in await log.read_after(run_id, EventId(1, 99), 2)] == [STARTED, b"b"]
    assert await log.read_after(run_id, EventId(2, 3), 100) == []
    assert await log.read_after(new_id(), None, 100) == []


async def test_append_twice_is_applied_once(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A batch sent again after a lost reply is OK, adds nothing and is not published again."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(live_channel(run_id))
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        batch = Batch(2, 4, (b"d", b"e"))
        assert await log.append(run_id, batch) is AppendResult.OK
        assert await log.append(run_id, batch) is AppendResult.OK
        assert await log.append(run_id, Batch(2, 2, (b"b", b"c"))) is AppendResult.OK
        assert await log.append(run_id, Batch(2, 6, (b"f",))) is AppendResult.OK
        heard = [(await pubsub.get_message(timeout=5))["data"] for _ in range(2)]
    assert heard == [b"2-4-5\nd\ne", b"2-6-6\nf"]
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3", "2-4", "2-5", "2-6"]


@pytest.mark.parametrize("first_n", [1, 2, 4], ids=["opening", "repeated", "next"])
async def test_append_of_an_older_attempt_is_fenced(log: EventLog, run_id: UUID, first_n: int) -> None:
    """Once a newer attempt has begun, an older one gets nothing in, not even its own `started`."""
    assert await log.append(run_id, Batch(1, first_n, (STARTED,))) is AppendResult.FENCED
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3"]


async def test_append_of_an_older_attempt_is_fenced_when_the_stream_is_gone(
    log: EventLog, redis: Redis, run_id: UUID
) -> None:
    """The head alone keeps an older attempt from beginning the stream again."""
    await redis.delete(events_key(run_id))
    assert await log.append(run_id, Batch(1, 1, (STARTED,))) is AppendResult.FENCED
    assert not await redis.exists(events_key(run_id))


async def test_append_of_a_newer_attempt_opens_it(log: EventLog, run_id: UUID) -> None:
    """A greater attempt begins with `started` after whatever the stream holds."""
    assert await log.append(run_id, Batch(5, 1, (STARTED, b"x"))) is AppendResult.OK
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3", "5-1", "5-2"]
    assert await log.head(run_id) == EventId(5, 2)


async def test_append_without_any_log_is_lost(log: EventLog) -> None:
    """After a FLUSHALL only a `started` may begin a stream again."""
    run_id = new_id()
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.LOST
    assert await _ids(log, run_id) == []
    assert await log.head(run_id) is None


async def test_append_without_head_is_lost(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A deleted head loses the log: nobody can tell what the stream ends with."""
    await redis.delete(head_key(run_id))
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.LOST
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3"]


async def test_append_without_stream_is_lost(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A deleted stream is not made anew in mid-attempt, and the head stays where it was."""
    await redis.delete(events_key(run_id))
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.LOST
    assert not await redis.exists(events_key(run_id))
    assert await log.head(run_id) == EventId(2, 3)


@pytest.mark.parametrize("attempt", [2, 3])
async def test_append_behind_a_hole_is_lost(log: EventLog, run_id: UUID, attempt: int) -> None:
    """A head older than what comes before the batch (Redis lost its last second) loses the log."""
    assert await log.append(run_id, Batch(attempt, 5, (b"e",))) is AppendResult.LOST
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3"]


async def test_append_of_a_batch_half_known_is_lost(log: EventLog, run_id: UUID) -> None:
    """A head inside the batch cannot come from that batch: nothing is taken for granted."""
    assert await log.append(run_id, Batch(2, 3, (b"c", b"d"))) is AppendResult.LOST


async def test_append_when_stream_is_newer_than_head_is_lost_or_fenced(
    log: EventLog, redis: Redis, run_id: UUID
) -> None:
    """Without a head the stream's newest id still keeps out what is not newer than it."""
    await redis.delete(head_key(run_id))
    assert await log.append(run_id, Batch(2, 1, (STARTED,))) is AppendResult.LOST
    assert await log.append(run_id, Batch(1, 1, (STARTED,))) is AppendResult.FENCED
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3"]
    assert await log.append(run_id, Batch(3, 1, (STARTED,))) is AppendResult.OK


async def test_append_with_trim_keeps_the_opening_and_what_follows(log: EventLog, run_id: UUID) -> None:
    """A trimmed stream begins with the new attempt's `started`."""
    assert await log.append(run_id, Batch(3, 1, (STARTED, b"x")), trim=True) is AppendResult.OK
    assert await _ids(log, run_id) == ["3-1", "3-2"]


async def test_append_refreshes_the_expiry_of_both_keys(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A stream lives for its time after the last append, and so does its head."""
    await redis.expire(events_key(run_id), 5)
    await redis.expire(head_key(run_id), 5)
    await log.append(run_id, Batch(2, 4, (b"d",)))
    assert TTL_S - 5 < await redis.ttl(events_key(run_id)) <= TTL_S
    assert TTL_S - 5 < await redis.ttl(head_key(run_id)) <= TTL_S


async def test_end_by_others_is_idempotent(log: EventLog, run_id: UUID) -> None:
    """Whoever tells the end, and however often, the log has it once, under the ids known beforehand."""
    for _ in range(3):
        await log.end(run_id, 3, STARTED, b"end")
    assert (await log.read_after(run_id, EventId(2, 3), 100)) == [
        LogEvent(EventId(3, 1), STARTED),
        LogEvent(EventId(3, 2), b"end"),
    ]
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.FENCED


async def test_end_by_others_after_the_head_was_deleted_adds_nothing(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """An end that the stream has already is not told twice, whatever became of the head."""
    await log.end(run_id, 3, STARTED, b"end")
    await redis.delete(head_key(run_id))
    await log.end(run_id, 3, STARTED, b"end")
    assert await _ids(log, run_id) == ["2-1", "2-2", "2-3", "3-1", "3-2"]


async def test_append_after_script_flush_loads_the_script_again(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A Redis that does not know the script (restarted, failed over) is taught it within the same call."""
    await redis.script_flush()
    results = await asyncio.gather(*(log.append(new_id(), Batch(1, 1, (STARTED,))) for _ in range(10)))
    assert results == [AppendResult.OK] * 10
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.OK


async def test_append_to_a_full_redis_is_down_and_writes_nothing(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """Out of memory is Redis being down: nothing is half written, and the same batch goes in afterwards."""
    batch = Batch(2, 4, (b"d", b"e"))
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(REDIS_DOWN):
            await log.append(run_id, batch)
    finally:
        await redis.config_set("maxmemory", 0)
    assert await log.head(run_id) == EventId(2, 3)
    assert await log.append(run_id, batch) is AppendResult.OK


async def test_append_to_a_read_only_replica_is_down(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A master that became a replica is Redis being down, never a fence."""
    await redis.slaveof("127.0.0.1", 1)
    try:
        with pytest.raises(REDIS_DOWN):
            await log.append(run_id, Batch(2, 4, (b"d",)))
        with pytest.raises(REDIS_DOWN):
            await log.append(run_id, Batch(1, 4, (b"d",)))
    finally:
        await redis.slaveof()
    assert await log.append(run_id, Batch(2, 4, (b"d",))) is AppendResult.OK


async def test_append_to_a_key_of_another_type_is_down(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """An answer that the script does not know is an error, not a verdict on the run."""
    await redis.delete(events_key(run_id))
    await redis.set(events_key(run_id), "x")
    with pytest.raises(REDIS_DOWN):
        await log.append(run_id, Batch(2, 4, (b"d",)))
    with pytest.raises(ResponseError):
        await log.read_after(run_id, None, 1)


async def test_append_publishes_once_per_batch(log: EventLog, redis: Redis, run_id: UUID) -> None:
    """A publication names its ids and carries its events, up to 256 KB; beyond that the ids alone."""
    large = b"x" * (MAX_BATCH_BYTES - 1)
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(live_channel(run_id))
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        await log.append(run_id, Batch(2, 4, (b"d", b"e")))
        await log.append(run_id, Batch(2, 6, (large,)))
        await log.append(run_id, Batch(2, 7, (large, b"")))
        heard = [parse_publication((await pubsub.get_message(timeout=5))["data"]) for _ in range(3)]
    assert heard == [
        Publication(2, 4, 5, (b"d", b"e")),
        Publication(2, 6, 6, (large,)),
        Publication(2, 7, 8, None),
    ]
