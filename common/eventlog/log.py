"""The event log of live runs: append (fenced, idempotent, published) and read after a cursor."""

from collections.abc import Awaitable
from enum import Enum
from typing import NamedTuple, cast
from uuid import UUID

import redis.asyncio

from common.eventlog import script
from common.eventlog.keys import events_key, head_key, live_channel
from common.eventlog.publication import MAX_BATCH_BYTES
from common.eventlog.script_pipeline import ScriptPipeline
from common.ids import EventId


class AppendResult(Enum):
    """What became of a batch."""

    OK = script.OK
    """It is in the log: now, or since an earlier try whose reply was lost."""
    FENCED = script.FENCED
    """A newer attempt has begun: stop."""
    LOST = script.LOST
    """The log does not continue where the batch begins: begin a new attempt."""


class Batch(NamedTuple):
    """Events `<attempt>-<first_n>` and following.

    Once sent it never changes: a repetition is recognised by its ids.
    """

    attempt: int
    first_n: int
    events: tuple[bytes, ...]

    @property
    def last_n(self) -> int:
        return self.first_n + len(self.events) - 1


class LogEvent(NamedTuple):
    """An event's JSON under its id; without an id when it was made up from Postgres."""

    id: EventId | None
    data: bytes


class EventLog:
    """The logs of all runs. Every method raises one of REDIS_DOWN when Redis does not answer as it should."""

    def __init__(self, redis: redis.asyncio.Redis, stream_ttl_s: int) -> None:
        self._redis = redis
        self._stream_ttl_s = stream_ttl_s
        self._scripts = ScriptPipeline(redis, script.APPEND)

    async def append(self, run_id: UUID, batch: Batch, *, trim: bool = False) -> AppendResult:
        """Appends and publishes the whole batch or nothing. May be repeated as it is when its reply was lost.

        Only a batch that begins with `started` (`first_n` 1) begins an attempt or a stream; `trim` then drops
        everything before it. Appends of many runs at the same moment share one round trip.
        """
        small = sum(map(len, batch.events)) + len(batch.events) <= MAX_BATCH_BYTES
        reply = await self._scripts.call(
            (events_key(run_id), head_key(run_id), live_channel(run_id)),
            (
                batch.attempt,
                batch.first_n,
                batch.last_n,
                self._stream_ttl_s,
                int(trim),
                int(small),
                *batch.events,
            ),
        )
        return AppendResult(reply)

    async def end(self, run_id: UUID, attempt: int, started: bytes, terminal: bytes) -> None:
        """Ends a run on behalf of somebody who is not its owner: `<attempt>-1` and `<attempt>-2`.

        `attempt` was raised for this end alone, so that only this pair can bear these ids: whoever finds the
        run ended may say so again, and nothing is written twice.
        """
        await self.append(run_id, Batch(attempt, 1, (started, terminal)))

    async def read_after(self, run_id: UUID, after: EventId | None, limit: int) -> list[LogEvent]:
        """Up to `limit` events whose ids are greater than `after` (None: from the stream's first), in order.

        What follows `after` without a hole is `after.n + 1` or a `started` (n = 1) of a greater attempt.
        """
        start = "-" if after is None else f"({after}"
        entries: list[tuple[bytes, dict[bytes, bytes]]]
        entries = await self._redis.xrange(events_key(run_id), min=start, count=limit)
        return [LogEvent(_event_id(entry_id), fields[b"d"]) for entry_id, fields in entries]

    async def head(self, run_id: UUID) -> EventId | None:
        """The newest event's id; None when the log knows nothing of the run."""
        # redis-py types one method for both of its clients.
        attempt, n = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(head_key(run_id), ["attempt", "n"]))
        return None if attempt is None or n is None else EventId(int(attempt), int(n))


def _event_id(entry_id: bytes) -> EventId:
    attempt, _, n = entry_id.partition(b"-")
    return EventId(int(attempt), int(n))
