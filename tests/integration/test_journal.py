"""What a run commits is committed once, whatever reply is lost, and by its owner alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.errors import LeaseLost
from common.eventlog.log import EventLog
from common.ids import EventId
from common.model.events import Done, Started, Step, Token, ToolCall, ToolResult
from common.model.run_state import FinishReason, Outcome
from common.model.steps import CallEnd, LedgerCall
from common.settle import Completed
from common.store import database
from common.store.database import Pool, close_pool, open_pool
from common.store.run_schedule import claim_runs
from tests.support.eventually import eventually
from tests.support.live_run import USAGE, LiveRun, live_run, step_with_calls
from tests.support.probed_pool import ProbedPool
from tests.support.worker_life import crash, read, read_one, told
from worker.run import commit
from worker.run.journal import begin_attempt, open_attempt

_REFUSED_S = 0.5
Write = Callable[[LiveRun, LedgerCall, Pool], Awaitable[Any]]


@pytest.fixture
async def probed(pool: Pool) -> ProbedPool:
    """The pool that the run commits through."""
    return ProbedPool(pool)


@pytest.fixture
async def live(settings: Settings, probed: ProbedPool, log: EventLog) -> AsyncIterator[LiveRun]:
    """A run in its first attempt."""
    async with live_run(settings, probed.as_pool, log) as live:
        yield live


async def test_model_call_begun_twice_is_one(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """A request whose metering was committed without a reply is metered once."""
    probed.lose_commit_reply()
    call_id = await live.journal.begin_model_call(1, 10)
    assert await read(pool, live.seeded, "select id, state from model_calls") == [(call_id, "started")]


async def test_model_call_ended_twice_has_ended_once(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """A failed request keeps its figures, and the run the time of its first token."""
    call_id = await live.journal.begin_model_call(1, 10)
    probed.lose_commit_reply()
    await live.journal.end_model_call(
        CallEnd(model_call_id=call_id, state="failed", usage=USAGE, error_code="truncated", first_token_age_s=0.0)
    )
    query = "select state, error_code, input_tokens, output_tokens from model_calls"
    assert await read(pool, live.seeded, query) == [("failed", "truncated", 10, 5)]
    assert await read_one(pool, live.seeded, "first_token_at is not null") == (True,)


async def test_step_committed_twice_is_one(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """One message, one event of it, its usage counted once; the same calls are to be run."""
    step = step_with_calls(await live.journal.begin_model_call(1, 10), 2)
    probed.lose_commit_reply()
    ledger = await live.journal.commit_step(step)
    assert [(call.id, call.index, call.state) for call in ledger] == [
        (step.calls[0].id, 0, "pending"),
        (step.calls[1].id, 1, "pending"),
    ]
    events = await live.complete()
    assert [type(event) for event in events] == [Started, ToolCall, ToolCall, Step, ToolResult, ToolResult, Done]
    assert await read(pool, live.seeded, "select role from messages where step = 1") == [("assistant",)]
    assert await read_one(pool, live.seeded, "step_count, usage -> 'inputTokens', usage -> 'outputTokens'") == (
        1,
        10,
        5,
    )


async def test_call_started_twice_is_in_flight_once(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """A call counts once among those that make a crash suspect."""
    call = await live.commit_call()
    probed.lose_commit_reply()
    await live.journal.start_call(call)
    assert await read_one(pool, live.seeded, "open_tool_calls") == (1,)
    assert await read(pool, live.seeded, "select state, attempt from tool_calls") == [("started", 1)]


async def test_call_finished_twice_has_one_result(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """One tool message, one event of it, and no call in flight."""
    call = await live.commit_call()
    await live.journal.start_call(call)
    probed.lose_commit_reply()
    await live.journal.finish_call(call, "found", Outcome.OK, started=True)
    assert await read_one(pool, live.seeded, "open_tool_calls") == (0,)
    assert await read(pool, live.seeded, "select content from messages where role = 'tool'") == [("found",)]
    assert [event.result for event in await live.complete() if isinstance(event, ToolResult)] == ["found"]


async def test_run_settled_twice_has_one_end(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """The terminal event is in the log once, under the id that the row keeps."""
    probed.lose_commit_reply()
    assert [type(event) for event in await live.complete()] == [Started, Done]
    (last,) = await live.log.read_after(live.seeded.run.id, EventId(1, 1), 10)
    assert last.id is not None
    assert await read_one(pool, live.seeded, "state, terminal_attempt, terminal_n") == ("completed", *last.id)


async def test_run_handed_back_twice_is_handed_back(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """Its owner is not told that the run was lost, and no crash is counted."""
    probed.lose_commit_reply()
    await live.journal.hand_back()
    columns = "state, attempt, lease_owner, crashes_total, available_at <= clock_timestamp()"
    assert await read_one(pool, live.seeded, columns) == ("queued", 1, None, 0, True)


async def test_attempt_raised_twice_is_raised_once(live: LiveRun, probed: ProbedPool, pool: Pool, redis: Redis) -> None:
    """A lost log whose repair got no reply goes on in the next attempt, not the one after it."""
    live.journal.emit(Token(content="some"))
    await eventually(lambda: _has_told(live, [Started, Token]))
    await redis.flushall()
    probed.lose_commit_reply()
    live.journal.emit(Token(content=" more"))
    await eventually(lambda: _has_told(live, [Started, Token]))
    assert await live.log.head(live.seeded.run.id) == EventId(2, 2)
    assert await read_one(pool, live.seeded, "attempt, claimed_attempt") == (2, 1)
    assert live.lease.attempt == 2
    assert (await told(live.log, live.seeded.run.id))[1] == Token(content="some more")


WRITES: dict[str, Write] = {
    "begin_model_call": lambda live, call, pool: live.journal.begin_model_call(2, 10),
    "end_model_call": lambda live, call, pool: live.journal.end_model_call(
        CallEnd(model_call_id=live.seeded.run.id, state="failed", usage=USAGE)
    ),
    "commit_step": lambda live, call, pool: live.journal.commit_step(step_with_calls(live.seeded.run.id, 1)),
    "start_call": lambda live, call, pool: live.journal.start_call(call),
    "finish_call": lambda live, call, pool: live.journal.finish_call(call, "late", Outcome.OK, started=True),
    "settle": lambda live, call, pool: live.journal.settle(Completed(FinishReason.STOP)),
    "hand_back": lambda live, call, pool: live.journal.hand_back(),
    "open_attempt": lambda live, call, pool: open_attempt(pool, live.lease),
    "begin_attempt": lambda live, call, pool: begin_attempt(pool, live.lease, live.lease.attempt),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_owner_of_an_older_attempt_writes_nothing(live: LiveRun, pool: Pool, write: Write) -> None:
    """Once somebody else has claimed the run, every write is refused as lost and changes no row."""
    call = await live.commit_call()
    await live.journal.begin_model_call(2, 10)  # open, as the new owner's own would be
    await crash(pool, live.seeded)
    assert len(await claim_runs(pool, "another worker", 10, 10)) == 1
    before = await _everything(pool, live)
    with pytest.raises(LeaseLost):
        await write(live, call, pool)
    assert await _everything(pool, live) == before


async def test_cancel_that_meets_a_broken_connection_is_not_lost(live: LiveRun, probed: ProbedPool) -> None:
    """A driver that answers a cancellation with its own failure does not make a cancelled run go on."""

    async def break_when_cancelled() -> None:
        reading.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation") from None

    probed.after("from runs", break_when_cancelled)
    reading = asyncio.create_task(open_attempt(probed.as_pool, live.lease))
    await asyncio.wait({reading})
    assert reading.cancelled()


async def test_cancel_during_a_commit_leaves_neither_half(live: LiveRun, probed: ProbedPool, pool: Pool) -> None:
    """A step whose commit got no reply is committed and told all the same, then the cancellation is raised."""

    async def cancel_and_lose() -> None:
        committing.cancel()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    step = step_with_calls(await live.journal.begin_model_call(1, 10), 0)
    probed.after("commit", cancel_and_lose)
    committing = asyncio.create_task(live.journal.commit_step(step))
    await asyncio.wait({committing})
    assert committing.cancelled()
    assert await read(pool, live.seeded, "select content from messages where step = 1") == [("let me look",)]
    assert [type(event) for event in await live.complete()] == [Started, Step, Done]


async def _has_told(live: LiveRun, kinds: list[type]) -> bool:
    return [type(event) for event in await told(live.log, live.seeded.run.id)] == kinds


async def _everything(pool: Pool, live: LiveRun) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for table in ("runs", "messages", "model_calls", "tool_calls"):
        rows += await read(pool, live.seeded, f"select to_jsonb(t) from {table} t order by id")
    return rows


async def test_commit_that_alone_is_refused_is_given_up(live_but_refused: LiveRun) -> None:
    """While Postgres answers heartbeats, but never this write, the run does not stay ours for ever."""
    async with asyncio.timeout(20):
        with pytest.raises(LeaseLost):
            await live_but_refused.journal.begin_model_call(1, 10)


async def test_commit_is_repeated_while_the_lease_is_in_doubt(live_but_refused: LiveRun, refusing: Pool) -> None:
    """Where no heartbeat is answered either, Postgres is away, however long: only a worker that leaves gives up."""
    live_but_refused.lease.active.clear()
    writing = asyncio.create_task(live_but_refused.journal.begin_model_call(1, 10))
    await asyncio.wait({writing}, timeout=4 * _REFUSED_S)
    assert not writing.done()
    writing.cancel()  # what is cancelled meters what it has begun, which is refused as well
    refusing.terminate()
    async with asyncio.timeout(20):
        await asyncio.wait({writing})
    assert writing.cancelled() or isinstance(writing.exception(), LeaseLost)


@pytest.fixture
async def refusing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """A pool whose statements wait for no lock for long."""
    monkeypatch.setattr(database, "_STATEMENT_S", 0.3)
    pool = await open_pool(settings)
    yield pool
    await close_pool(pool)


@pytest.fixture
async def live_but_refused(
    settings: Settings, refusing: Pool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LiveRun]:
    """A run whose model calls cannot be written, since somebody has locked their table."""
    monkeypatch.setattr(commit, "_REFUSED_S", _REFUSED_S)
    owner = await asyncpg.connect(settings.migration_database_url)
    async with live_run(settings, refusing, log) as live, owner.transaction():
        await owner.execute("lock table model_calls in access exclusive mode")
        yield live
    await owner.close()
