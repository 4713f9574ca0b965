"""The one way a run ends."""

from uuid import UUID

import asyncpg
import pytest

from common.ids import EventId
from common.model.events import Cancelled, Done, Error, Started, decode_event
from common.model.run_state import CancelReason, FinishReason, Priority, RunErrorCode, RunState
from common.settle import CancelledBy, Completed, Failed, settle
from common.store.database import Pool, workspace_transaction
from common.store.run_events import select_stored_end
from common.store.run_schedule import claim_runs
from common.store.run_transitions import DueRun, request_cancel
from common.store.runs import select_run
from tests.support.seed import Seeded, seed_run

STOP = Completed(FinishReason.STOP)
CRASH = Failed(RunErrorCode.CRASH_LOOP, "again and again", retryable=False)


async def _claim(pool: Pool) -> int:
    (claim,) = await claim_runs(pool, "me", 10, 10)
    return claim.attempt


async def _state(pool: Pool, seeded: Seeded) -> RunState:
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        run = await select_run(connection, seeded.run.id)
    assert run is not None
    return run.state


async def _sql(pool: Pool, workspace_id: UUID, statement: str, *arguments: object) -> None:
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute(statement, *arguments)


async def test_owner_ends_its_run_with_the_id_it_sealed(pool: Pool) -> None:
    """The id that the owner numbered is the stored one, and the event as stored is the one told."""
    seeded = await seed_run(pool)
    attempt = await _claim(pool)
    settled = await settle(
        pool,
        seeded.workspace_id,
        seeded.run.id,
        STOP,
        by="owner",
        attempt=attempt,
        seal=lambda closed, terminal: EventId(attempt, 7),
    )
    assert settled is not None
    assert (settled.event_id, settled.started) == (EventId(1, 7), None)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        end = await select_stored_end(connection, seeded.run.id)
    assert end is not None
    assert (end.terminal_id, end.terminal) == (EventId(1, 7), settled.terminal)
    assert isinstance(decode_event(end.terminal), Done)


async def test_owner_of_an_older_attempt_ends_nothing(pool: Pool) -> None:
    """A zombie's end is refused, whatever it believes."""
    seeded = await seed_run(pool)
    await _claim(pool)
    refused = await settle(
        pool, seeded.workspace_id, seeded.run.id, STOP, by="owner", attempt=0, seal=lambda c, t: EventId(0, 2)
    )
    assert refused is None
    assert await _state(pool, seeded) is RunState.RUNNING


async def test_api_ends_a_queued_run_as_an_attempt_of_two_events(pool: Pool) -> None:
    """Nobody runs it, so its end is known beforehand: `<attempt>-2`, behind a `started`."""
    seeded = await seed_run(pool)
    settled = await settle(pool, seeded.workspace_id, seeded.run.id, CancelledBy(), by="api")
    assert settled is not None
    assert settled.event_id == EventId(1, 2)
    assert settled.started is not None
    started = decode_event(settled.started)
    assert isinstance(started, Started)
    assert (started.attempt, started.messages) == (1, [])
    assert decode_event(settled.terminal) == Cancelled(reason=CancelReason.USER)


async def test_api_may_not_end_a_running_run(pool: Pool) -> None:
    """Its owner must hear of it first."""
    seeded = await seed_run(pool)
    await _claim(pool)
    assert await settle(pool, seeded.workspace_id, seeded.run.id, CancelledBy(), by="api") is None


async def test_second_end_answers_with_the_first(pool: Pool) -> None:
    """Whoever comes later is told how the run ended; nothing changes."""
    seeded = await seed_run(pool)
    first = await settle(pool, seeded.workspace_id, seeded.run.id, CancelledBy(), by="api")
    second = await settle(pool, seeded.workspace_id, seeded.run.id, CRASH, by="sweep", attempt=1)
    assert first is not None
    assert second is not None
    assert (second.event_id, second.terminal) == (first.event_id, first.terminal)


async def test_sweep_ends_only_what_has_expired(pool: Pool) -> None:
    """A living lease protects its run; once it is over, the sweep may end it in a new attempt."""
    seeded = await seed_run(pool)
    attempt = await _claim(pool)
    assert await settle(pool, seeded.workspace_id, seeded.run.id, CRASH, by="sweep", attempt=attempt) is None, (
        "the lease is alive"
    )
    await _sql(pool, seeded.workspace_id, "update runs set lease_until = clock_timestamp() - interval '1 s'")
    settled = await settle(pool, seeded.workspace_id, seeded.run.id, CRASH, by="sweep", attempt=attempt)
    assert settled is not None
    assert settled.event_id == EventId(2, 2)
    error = decode_event(settled.terminal)
    assert isinstance(error, Error)
    assert error.error.code is RunErrorCode.CRASH_LOOP


async def test_reason_noted_with_the_request_wins(pool: Pool) -> None:
    """Who asked first is who cancelled."""
    seeded = await seed_run(pool)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await request_cancel(connection, seeded.run.id, CancelReason.INTERRUPTED)
        await request_cancel(connection, seeded.run.id, CancelReason.USER)
    settled = await settle(pool, seeded.workspace_id, seeded.run.id, CancelledBy(), by="api")
    assert settled is not None
    assert decode_event(settled.terminal) == Cancelled(reason=CancelReason.INTERRUPTED)


async def test_end_promotes_the_next_waiting_run_in_order(pool: Pool) -> None:
    """Waiting runs of a conversation start in the order of their turns, one at a time."""
    first = await seed_run(pool)
    second, third = [
        await seed_run(
            pool,
            workspace_id=first.workspace_id,
            conversation_id=first.conversation_id,
            state=RunState.WAITING,
        )
        for _ in range(2)
    ]
    settled = await settle(pool, first.workspace_id, first.run.id, CancelledBy(), by="api")
    assert settled is not None
    assert settled.promoted == DueRun(second.run.id, Priority.INTERACTIVE)
    assert [await _state(pool, run) for run in (first, second, third)] == [
        RunState.CANCELLED,
        RunState.QUEUED,
        RunState.WAITING,
    ]


async def test_run_that_has_ended_is_immutable(pool: Pool) -> None:
    """The database itself refuses to change it, but for marking it superseded."""
    seeded = await seed_run(pool)
    await settle(pool, seeded.workspace_id, seeded.run.id, CancelledBy(), by="api")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="immutable"):
        await _sql(pool, seeded.workspace_id, "update runs set step_count = 5")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="immutable"):
        await _sql(pool, seeded.workspace_id, "update runs set step_count = 5, superseded_at = clock_timestamp()")
    await _sql(pool, seeded.workspace_id, "update runs set superseded_at = clock_timestamp()")
