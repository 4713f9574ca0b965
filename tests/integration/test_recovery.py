"""What a worker makes up for: due runs, expired leases, missed ends and promotions."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.ids import EventId
from common.model.events import Cancelled, Error, Started
from common.model.run_state import CancelReason, RunErrorCode, RunState
from common.store.database import Pool, workspace_transaction
from common.store.run_schedule import claim_runs
from common.store.run_transitions import request_cancel
from tests.support.eventually import eventually
from tests.support.probed_pool import ProbedPool
from tests.support.scripted_provider import ScriptedProvider, says
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import expire_lease, read_one, told, worker_resources, write
from worker.job import RunningRuns
from worker.recovery import sweep, take_due_runs
from worker.run.resources import Resources

LEASE_S = 0.4


@pytest.fixture
def probed(pool: Pool) -> ProbedPool:
    """The pool that the sweep sees."""
    return ProbedPool(pool)


@pytest.fixture
def resources(settings: Settings, probed: ProbedPool, redis: Redis) -> Resources:
    """Of a worker that trusts Postgres after a fraction of a second."""
    quick = msgspec.structs.replace(settings, lease_s=LEASE_S, heartbeat_s=0.1, sweep_s=0.02)
    return worker_resources(quick, probed.as_pool, redis)


@asynccontextmanager
async def _going_on(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    yield
    assert not task.done(), "it goes on until it is cancelled"
    task.cancel()
    await asyncio.wait({task})


async def test_locked_conversation_does_not_stop_the_sweep(resources: Resources, pool: Pool) -> None:
    """The runs of other conversations are ended while somebody holds one, and that one's when it is free."""
    locked, *others = [await _cancelled(pool) for _ in range(4)]
    crashed = await _crashed(pool, crashes=0)
    async with _going_on(sweep(resources, RunningRuns(resources))):
        async with workspace_transaction(pool, locked.workspace_id) as connection:
            await connection.execute("select from conversations where id = $1 for update", locked.conversation_id)
            for other in others:
                await _reaches(pool, other, "cancelled")
            await _reaches(pool, crashed, "queued")
        await _reaches(pool, locked, "cancelled")


async def test_locked_conversation_does_not_stop_claims(
    resources: Resources, settings: Settings, pool: Pool, redis: Redis
) -> None:
    """While the sweep waits for one conversation, due runs are taken all the same."""
    locked = await _cancelled(pool)
    playing = worker_resources(
        msgspec.structs.replace(settings, sweep_s=0.02), pool, redis, ScriptedProvider(says("one"), says("two"))
    )
    runs = RunningRuns(playing)
    async with _going_on(sweep(resources, RunningRuns(resources))), _going_on(take_due_runs(playing, runs)):
        async with workspace_transaction(pool, locked.workspace_id) as connection:
            await connection.execute("select from conversations where id = $1 for update", locked.conversation_id)
            for _ in range(2):
                await _reaches(pool, await seed_run(pool, provider="scripted"), "completed")
        await _reaches(pool, locked, "cancelled")


async def test_full_worker_takes_the_next_run_as_soon_as_one_has_ended(
    settings: Settings, pool: Pool, redis: Redis
) -> None:
    """A freed place waits neither for a bell, which the full worker may have heard long ago, nor for the next look."""
    full = msgspec.structs.replace(settings, worker_max_runs=1, sweep_s=3_600)
    playing = worker_resources(full, pool, redis, ScriptedProvider(says("one"), says("two"), says("three")))
    waiting = [await seed_run(pool, provider="scripted") for _ in range(3)]
    async with _going_on(take_due_runs(playing, RunningRuns(playing))):
        for seeded in waiting:
            await _reaches(pool, seeded, "completed")


async def test_run_that_crashed_too_often_is_ended_and_told(resources: Resources, pool: Pool) -> None:
    """Its log holds an attempt of two events, `started` and the error, under the id that the row keeps."""
    seeded = await _crashed(pool, crashes=9)
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await _reaches(pool, seeded, "failed")
        started, error = await eventually(lambda: told(resources.log, seeded.run.id))
    assert isinstance(started, Started)
    assert isinstance(error, Error)
    assert error.error.code is RunErrorCode.CRASH_LOOP
    assert await resources.log.head(seeded.run.id) == EventId(2, 2)
    assert await read_one(pool, seeded, "terminal_attempt, terminal_n") == (2, 2)


async def test_cancelled_run_whose_worker_died_is_ended_and_told(resources: Resources, pool: Pool) -> None:
    """Nobody is left to obey the request, so the sweep does when the lease has run out; it is no crash."""
    seeded = await _crashed(pool, crashes=0)
    await _request_cancel(pool, seeded)
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await _reaches(pool, seeded, "cancelled")
        events = await eventually(lambda: told(resources.log, seeded.run.id))
    assert [type(event) for event in events] == [Started, Cancelled]
    assert await read_one(pool, seeded, "terminal_attempt, terminal_n, crashes_total") == (2, 2, 0)


async def test_run_handed_back_under_a_cancel_is_ended_and_told(resources: Resources, pool: Pool) -> None:
    """Its worker left before it knew of the request: nobody claims the run, the sweep ends it."""
    seeded = await seed_run(pool)
    await _request_cancel(pool, seeded)
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await _reaches(pool, seeded, "cancelled")
        events = await eventually(lambda: told(resources.log, seeded.run.id))
    assert [type(event) for event in events] == [Started, Cancelled]


async def test_waiting_run_that_nobody_promoted_is_promoted(resources: Resources, pool: Pool) -> None:
    """The first of a conversation without an active run becomes due, the others wait on."""
    first = await seed_run(pool, state=RunState.WAITING)
    second = await seed_run(
        pool, workspace_id=first.workspace_id, conversation_id=first.conversation_id, state=RunState.WAITING
    )
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await _reaches(pool, first, "queued")
    assert await read_one(pool, second, "state") == ("waiting",)


async def test_lease_is_swept_only_after_a_whole_lease_of_answers(resources: Resources, pool: Pool) -> None:
    """Where nobody has swept for long, a worker gives the owners the time to renew."""
    seeded = await _crashed(pool, crashes=0)
    begun_at = time.monotonic()
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await _reaches(pool, seeded, "queued")
    assert time.monotonic() - begun_at >= LEASE_S


async def test_sweep_waits_for_a_lease_again_after_postgres_was_gone(
    resources: Resources, probed: ProbedPool, pool: Pool
) -> None:
    """Refused connections, however long, bring no lease nearer to its sweep."""
    seeded = await _crashed(pool, crashes=0)
    probed.cut()
    begun_at = time.monotonic()
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await eventually(lambda: probed.refused > 3 and time.monotonic() - begun_at > 2 * LEASE_S)
        mended_at = time.monotonic()
        probed.mend()
        await _reaches(pool, seeded, "queued")
    assert time.monotonic() - mended_at >= LEASE_S


async def test_sweep_waits_for_a_lease_again_after_postgres_stood_still(
    resources: Resources, probed: ProbedPool, pool: Pool
) -> None:
    """What was sent before a pause and is answered after it takes nobody's run: owners renew first."""
    stands_still = asyncio.Event()

    async def stand_still() -> None:
        probed.pause()
        stands_still.set()

    probed.after("find_promotable", stand_still)  # the last statement of a sweep
    async with _going_on(sweep(resources, RunningRuns(resources))):
        await stands_still.wait()
        paused_at = time.monotonic()
        seeded = await _crashed(pool, crashes=0)
        await eventually(lambda: time.monotonic() - paused_at > 2 * LEASE_S)
        resumed_at = time.monotonic()
        probed.resume()
        await _reaches(pool, seeded, "queued")
    assert time.monotonic() - resumed_at >= LEASE_S


async def _cancelled(pool: Pool) -> Seeded:
    """A queued run whose cancellation was requested and never carried out."""
    seeded = await seed_run(pool)
    await _request_cancel(pool, seeded)
    return seeded


async def _crashed(pool: Pool, crashes: int) -> Seeded:
    """A run whose worker is silent for good; `crashes` others were before."""
    seeded = await seed_run(pool)
    await claim_runs(pool, "a dead worker", 10, 10)
    await write(pool, seeded, "update runs set crashes_total = $1", crashes)
    await expire_lease(pool, seeded)
    return seeded


async def _request_cancel(pool: Pool, seeded: Seeded) -> None:
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await request_cancel(connection, seeded.run.id, CancelReason.USER)


async def _reaches(pool: Pool, seeded: Seeded, state: str) -> None:
    async def reached() -> bool:
        return await read_one(pool, seeded, "state") == (state,)

    await eventually(reached, 10)
