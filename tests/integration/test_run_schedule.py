"""Claims, leases and sweeps, on the database's own clock."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from common.errors import LeaseLost
from common.model.run_state import CancelReason, Priority, RunState
from common.store.database import Pool, workspace_transaction
from common.store.run_schedule import (
    Claim,
    ToCancel,
    claim_runs,
    find_cancelled,
    find_promotable,
    measure_queue,
    poll_runs,
    renew_leases,
    sweep_expired,
)
from common.store.run_transitions import raise_attempt, request_cancel, select_run_spec
from common.store.steps import insert_step
from tests.support.seed import Seeded, seed_run
from tests.support.steps import said


async def _sql(pool: Pool, workspace_id: UUID, statement: str) -> None:
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute(statement)


async def _crash(pool: Pool, seeded: Seeded, *, in_tool: bool) -> str:
    """Claims the run, lets its lease lapse and sweeps; the verdict."""
    await _sql(pool, seeded.workspace_id, "update runs set available_at = clock_timestamp() where state = 'queued'")
    await claim_runs(pool, "dead", 10, 10)
    await _sql(
        pool,
        seeded.workspace_id,
        f"update runs set lease_until = clock_timestamp() - interval '1 s', open_tool_calls = {int(in_tool)}",
    )
    (expired,) = await sweep_expired(pool, answering_s=0)
    return expired.verdict


async def _progress(pool: Pool, seeded: Seeded, step: int) -> None:
    """Commits a step of the run's newest attempt, which begins now unless it has before."""
    await _sql(pool, seeded.workspace_id, "update runs set available_at = clock_timestamp() where state = 'queued'")
    await claim_runs(pool, "next", 10, 10)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        attempt = await connection.fetchval("select attempt from runs where id = $1", seeded.run.id)
        assert await insert_step(connection, seeded.run.id, attempt, 10, said(step, "on my way")) is not None


async def test_run_is_claimed_once(pool: Pool) -> None:
    """Two workers that look at the same moment get different runs, each in its first attempt."""
    seeded = [await seed_run(pool) for _ in range(3)]
    first, second = await claim_runs(pool, "a", 10, 2), await claim_runs(pool, "b", 10, 10)
    assert [claim.attempt for claim in (*first, *second)] == [1, 1, 1]
    assert {claim.run_id for claim in (*first, *second)} == {one.run.id for one in seeded}


async def test_claims_at_the_same_moment_take_different_runs(pool: Pool) -> None:
    """Two workers that both find a run due, and wait for the same lock, do not both get it."""
    seeded = await seed_run(pool)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await connection.execute("select from runs where id = $1 for update", seeded.run.id)
        claiming = [asyncio.create_task(claim_runs(pool, f"worker {number}", 10, 5)) for number in range(2)]
        await asyncio.wait(claiming, timeout=0.5)  # Both skip it; whoever does not would wait here.
    claims = [*await claiming[0], *await claiming[1], *await claim_runs(pool, "later", 10, 5)]
    assert claims == [Claim(seeded.workspace_id, seeded.run.id, 1, Priority.INTERACTIVE)]


async def test_claim_under_lock_is_skipped(pool: Pool) -> None:
    """A row that a slow transaction holds delays nobody else's claim."""
    held, free = await seed_run(pool), await seed_run(pool)
    async with workspace_transaction(pool, held.workspace_id) as connection:
        await connection.execute("select from runs where id = $1 for update", held.run.id)
        claims = await claim_runs(pool, "a", 10, 10)
    assert [claim.run_id for claim in claims] == [free.run.id]


async def test_claim_leaves_a_run_that_is_to_be_cancelled(pool: Pool) -> None:
    """It is found by those who end such runs instead."""
    seeded = await seed_run(pool)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await request_cancel(connection, seeded.run.id, CancelReason.USER)
    assert await claim_runs(pool, "a", 10, 10) == []
    assert await find_cancelled(pool) == [ToCancel(seeded.workspace_id, seeded.run.id, 0)]


async def test_renewal_answers_for_what_is_still_owned(pool: Pool) -> None:
    """Another owner's run, an older attempt and an unknown run are absent; a cancel request is told."""
    seeded = await seed_run(pool)
    other = await seed_run(pool)
    (claim,) = await claim_runs(pool, "me", 10, 1)
    await claim_runs(pool, "you", 10, 1)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await request_cancel(connection, seeded.run.id, CancelReason.USER)
    asked = [(claim.run_id, 1), (other.run.id, 1)]
    assert await renew_leases(pool, "me", asked, 10, wait=False) == {seeded.run.id: True}
    assert await renew_leases(pool, "me", [(claim.run_id, 2)], 10, wait=True) == {}


async def test_renewal_skips_a_locked_row_and_renews_the_others(pool: Pool) -> None:
    """One row's lock must not let all leases of a worker lapse."""
    locked, free = await seed_run(pool), await seed_run(pool)
    await claim_runs(pool, "me", 10, 10)
    asked = [(locked.run.id, 1), (free.run.id, 1)]
    async with workspace_transaction(pool, locked.workspace_id) as connection:
        await connection.execute("select from runs where id = $1 for update", locked.run.id)
        assert await renew_leases(pool, "me", asked, 10, wait=False) == {free.run.id: False}
    assert await renew_leases(pool, "me", asked[:1], 10, wait=True) == {locked.run.id: False}


async def test_living_lease_is_left_alone(pool: Pool) -> None:
    """The sweep touches no run whose lease has not run out."""
    await seed_run(pool)
    await claim_runs(pool, "me", 10, 10)
    assert await sweep_expired(pool, answering_s=0) == []


@pytest.mark.parametrize(
    ("answering_since_s", "seen_s", "swept"),
    [(11, 1, 1), (9, 1, 0), (3600, 6, 0)],
    ids=["for a whole lease", "not for a whole lease", "with a pause of half a lease"],
)
async def test_sweep_trusts_postgres_by_what_all_workers_saw(
    pool: Pool, database_url: str, answering_since_s: float, seen_s: float, swept: int
) -> None:
    """Leases are swept once Postgres has answered somebody's sweeps for a lease; whoever asks may be new."""
    seeded = await seed_run(pool)
    await claim_runs(pool, "dead", 10, 10)
    await _sql(pool, seeded.workspace_id, "update runs set lease_until = clock_timestamp() - interval '1 s'")
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute(
            """
            update availability set answering_since = clock_timestamp() - interval '1 s' * $1::float8,
                                    seen_at = clock_timestamp() - interval '1 s' * $2::float8
            """,
            float(answering_since_s),
            float(seen_s),
        )
    finally:
        await owner.close()
    assert len(await sweep_expired(pool, 10)) == swept


async def test_first_crash_is_due_again_at_once(pool: Pool) -> None:
    """The next worker takes the run in a new attempt without waiting."""
    seeded = await seed_run(pool)
    assert await _crash(pool, seeded, in_tool=False) == "requeued"
    (claim,) = await claim_runs(pool, "next", 10, 10)
    assert (claim.run_id, claim.attempt) == (seeded.run.id, 2)


async def test_second_crash_waits(pool: Pool) -> None:
    """From the second crash on there is a pause, so that a run that kills its worker does not kill all at once."""
    seeded = await seed_run(pool)
    for _ in range(2):
        assert await _crash(pool, seeded, in_tool=False) == "requeued"
    assert await claim_runs(pool, "next", 10, 10) == []


async def test_third_crash_inside_a_tool_is_a_loop(pool: Pool) -> None:
    """A run whose tool was running at each of three crashes is the suspect."""
    seeded = await seed_run(pool)
    verdicts = [await _crash(pool, seeded, in_tool=True) for _ in range(3)]
    assert verdicts == ["requeued", "requeued", "crash_loop"]


async def test_owner_knows_of_a_last_chance(pool: Pool) -> None:
    """After two crashes inside a tool its owner is told so, until a step is committed."""
    seeded = await seed_run(pool)
    chances = []
    for _ in range(2):
        await _crash(pool, seeded, in_tool=True)
        chances.append(await _is_last_chance(pool, seeded))
    await _progress(pool, seeded, 1)
    assert [*chances, await _is_last_chance(pool, seeded)] == [False, True, False]


async def _is_last_chance(pool: Pool, seeded: Seeded) -> bool:
    await _sql(pool, seeded.workspace_id, "update runs set state = 'running', lease_owner = 'x', lease_until = now()")
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        attempt = await connection.fetchval("select attempt from runs")
        spec = await select_run_spec(connection, seeded.run.id, attempt, lock=False)
    await _sql(pool, seeded.workspace_id, "update runs set state = 'queued', lease_owner = null, lease_until = null")
    return spec.last_chance


async def test_tenth_crash_is_a_loop_whatever_ran(pool: Pool) -> None:
    """A crash without a tool is probably a neighbour's fault, but not ten times."""
    seeded = await seed_run(pool)
    verdicts = [await _crash(pool, seeded, in_tool=False) for _ in range(10)]
    assert verdicts == ["requeued"] * 9 + ["crash_loop"]


async def test_crashes_before_a_step_do_not_count_after_it(pool: Pool) -> None:
    """A run that goes on between its crashes is due again at once, and no loop, however many workers die under it."""
    seeded = await seed_run(pool)
    for step in range(1, 16):
        assert await _crash(pool, seeded, in_tool=False) == "requeued"
        assert len(await claim_runs(pool, "next", 10, 10)) == 1
        await _progress(pool, seeded, step)


async def test_tenth_crash_inside_a_tool_is_a_loop_whatever_progress(pool: Pool) -> None:
    """A run that kills its worker in every step is ended before its last step."""
    seeded = await seed_run(pool)
    verdicts = []
    for step in range(1, 11):
        verdicts.append(await _crash(pool, seeded, in_tool=True))
        await _progress(pool, seeded, step)
    assert verdicts == ["requeued"] * 9 + ["crash_loop"]


async def test_missed_promotion_is_found(pool: Pool) -> None:
    """A waiting run without an active one before it is one that somebody forgot."""
    waiting = await seed_run(pool, state=RunState.WAITING)
    ((workspace_id, conversation_id),) = await find_promotable(pool)
    assert (workspace_id, conversation_id) == (waiting.workspace_id, waiting.conversation_id)


async def test_position_tells_state_and_nothing_else(pool: Pool) -> None:
    """A relay's poll knows attempt and state; an unknown run is absent."""
    seeded = await seed_run(pool)
    (position,) = await poll_runs(pool, [seeded.run.id, seeded.workspace_id])
    assert position == (seeded.workspace_id, seeded.run.id, RunState.QUEUED, 0, None)


async def test_queue_is_measured_across_workspaces_by_priority(pool: Pool) -> None:
    """What is due, for how long, what is not yet, what runs and what waits; who is to be cancelled waits for nobody."""
    assert await measure_queue(pool) == [(priority, 0, 0, 0, None, 0, 0) for priority in Priority]
    old, later, cancelled = [await seed_run(pool) for _ in range(3)]
    for seeded, change in (
        (old, "priority = 1, available_at = clock_timestamp() - interval '20 seconds'"),
        (later, "priority = 1, available_at = clock_timestamp() + interval '1 hour'"),
        (cancelled, "cancel_requested_at = clock_timestamp()"),
    ):
        await _sql(pool, seeded.workspace_id, f"update runs set {change}")
    await seed_run(pool, state=RunState.WAITING)
    await seed_run(pool)
    (claimed,) = await claim_runs(pool, "me", 10, 1)
    interactive, background = await measure_queue(pool)
    assert interactive == (Priority.INTERACTIVE, 0, 0, 0, None, 1, 1)
    assert background._replace(oldest_due_s=None) == (Priority.BACKGROUND, 2, 1, 0, None, 0, 0)
    assert background.oldest_due_s is not None
    assert 20 <= background.oldest_due_s < 600
    assert claimed.run_id != old.run.id


@pytest.mark.parametrize("column", ["instructions", "provider", "usage", "terminal_event", "created_by", "error"])
async def test_scheduler_role_may_not_read_content(database_url: str, column: str) -> None:
    """What sees across workspaces sees no content: the grants stop even a faulty function."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("set role throughline_scheduler")
        assert await connection.fetchval("select count(id) from runs") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"select {column} from runs")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("select from messages")
    finally:
        await connection.close()


async def test_attempt_that_its_owner_raised_is_still_the_same_claim(pool: Pool) -> None:
    """Raising the attempt twice after a lost reply raises it once, and the lease is renewed all the same."""
    seeded = await seed_run(pool)
    await claim_runs(pool, "me", 10, 10)
    for _ in range(2):
        async with workspace_transaction(pool, seeded.workspace_id) as connection:
            assert await raise_attempt(connection, seeded.run.id, 1, 1, 10) == 2
    assert await renew_leases(pool, "me", [(seeded.run.id, 1)], 10, wait=False) == {seeded.run.id: False}


async def test_attempt_of_an_older_claim_is_not_raised(pool: Pool) -> None:
    """Whoever lost the run to another claim must not raise that one's attempt."""
    seeded = await seed_run(pool)
    await _crash(pool, seeded, in_tool=False)
    await claim_runs(pool, "me", 10, 10)
    with pytest.raises(LeaseLost):
        async with workspace_transaction(pool, seeded.workspace_id) as connection:
            await raise_attempt(connection, seeded.run.id, 1, 1, 10)
