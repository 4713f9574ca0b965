"""How many runs of a workspace may be running at once: claims pass over the rest, and an end lets in the next one."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

import msgspec
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.ids import new_id
from common.model.run_state import Priority
from common.queue import QUEUES
from common.store.database import Pool
from common.store.run_schedule import claim_runs, measure_queue
from common.store.workspace_limits import upsert_default
from tests.support.eventually import eventually
from tests.support.limits import set_limits
from tests.support.lines import Lines, open_lines
from tests.support.scripted_provider import ScriptedProvider, says
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import expire_lease, read_one, worker_resources, write
from worker import main
from worker.bells import answer_bells
from worker.job import RunningRuns
from worker.recovery import sweep

INTERACTIVE, BACKGROUND = Priority.INTERACTIVE, Priority.BACKGROUND
_WAITS_FOR_A_CLAIM = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
_RUNNING = "select workspace_id, count(*) from runs where state = 'running' group by 1"


@pytest.fixture
async def lines(database_url: str) -> AsyncIterator[Lines]:
    """What waits for workers."""
    async with open_lines(database_url) as lines:
        yield lines


async def _cap(pool: Pool, most: int) -> None:
    """As the settings say it for all workspaces."""
    await upsert_default(pool, "running_runs", most)


async def _running(lines: Lines) -> dict[UUID, int]:
    return {row[0]: row[1] for row in await lines.connection.fetch(_RUNNING)}


async def test_cap_holds_however_many_claim_at_once(pool: Pool, lines: Lines) -> None:
    """Of workspaces with caps of their own and one without, as many run as may, whatever size the claims have."""
    small, large, free = sorted(new_id() for _ in range(3))
    await _cap(pool, 2)
    await set_limits(pool, large, running_runs=5)
    await set_limits(pool, free, running_runs=0)
    await lines.queue([small, large, free], 30)
    await lines.queue([small, large], 10, BACKGROUND)
    seen = set[UUID]()
    for sizes in ([1] * 12, [4] * 6, [1, 9, 2, 30], [1] * 12):
        answers = await asyncio.gather(*(claim_runs(pool, "worker", 600, size) for size in sizes))
        claims = [claim for answer in answers for claim in answer]
        assert seen.isdisjoint(claim.run_id for claim in claims)
        seen |= {claim.run_id for claim in claims}
        running = await _running(lines)
        assert running[small] <= 2
        assert running[large] <= 5
        await lines.end([claim.run_id for claim in claims if claim.workspace_id != free][:4])
    await claim_runs(pool, "worker", 600, 50)
    assert await _running(lines) == {small: 2, large: 5, free: 30}


async def test_claim_waits_for_one_that_may_fill_the_cap(pool: Pool, lines: Lines) -> None:
    """While another claim in the workspace is not committed, nobody knows yet whether there is room."""
    await _cap(pool, 1)
    capped, other = sorted([new_id(), new_id()])
    await lines.queue([capped], 2)
    async with lines.connection.transaction():
        assert len(await lines.connection.fetch("select * from claim_runs('me', '10 s', 1, '{0,1}')")) == 1
        claiming = asyncio.create_task(claim_runs(pool, "you", 600, 1))

        async def waits() -> bool:
            return bool(await pool.fetchval(_WAITS_FOR_A_CLAIM))

        await eventually(waits)
    assert await claiming == []
    await lines.queue([other], 1)
    assert [claim.workspace_id for claim in await claim_runs(pool, "you", 600, 9)] == [other]


async def test_workspace_at_its_cap_is_passed_over(pool: Pool, lines: Lines) -> None:
    """Its long line holds up nobody, background runs count like others, and each end makes room for one."""
    await _cap(pool, 2)
    busy, other = new_id(), new_id()
    await lines.queue([busy], 50, due_s=90)
    await lines.queue([busy], 50, BACKGROUND, due_s=90)
    first = await claim_runs(pool, "worker", 600, 10)
    assert len(first) == 2
    assert await claim_runs(pool, "worker", 600, 10) == []
    theirs = await lines.queue([other], 1)
    assert [claim.run_id for claim in await claim_runs(pool, "worker", 600, 10)] == list(theirs)
    await lines.end([first[0].run_id])
    assert len(await claim_runs(pool, "worker", 600, 10)) == 1
    await lines.end([first[1].run_id])
    assert [claim.priority for claim in await claim_runs(pool, "worker", 600, 10, [BACKGROUND])] == [BACKGROUND]


async def test_cap_of_one_workspace_overrides_the_default(pool: Pool, lines: Lines) -> None:
    """It holds from the next claim on: more, fewer than are running already, or any number."""
    workspace_id = new_id()
    await lines.queue([workspace_id], 20)
    for cap, claimed in ((3, 3), (1, 0), (4, 1), (0, 16)):
        await set_limits(pool, workspace_id, running_runs=cap)
        assert len(await claim_runs(pool, "worker", 600, 50)) == claimed


async def test_claims_of_the_version_before_keep_the_cap(pool: Pool, lines: Lines) -> None:
    """Workers that know of no cap, and of no priorities, ask the same functions."""
    await _cap(pool, 3)
    await lines.queue([new_id()], 9)
    assert len(await pool.fetch("select * from claim_runs('old worker', '10 s', 2)")) == 2
    assert len(await pool.fetch("select * from claim_runs('old worker', '10 s', 5, '{0,1}'::smallint[])")) == 1
    assert await pool.fetch("select * from claim_runs('old worker', '10 s', 5)") == []


async def test_cap_of_the_settings_is_told_by_the_worker_that_starts(
    settings: Settings, pool: Pool, lines: Lines
) -> None:
    """Before it claims anything; the one that started last counts."""
    await lines.queue([new_id()], 9)
    for most, claimed in ((4, 4), (5, 1), (0, 4)):
        opened = await main._open_pool_when_up(
            msgspec.structs.replace(settings, limit_running_runs=most), asyncio.Event()
        )
        assert opened is not None
        await opened.close()
        assert len(await claim_runs(pool, "worker", 600, 50)) == claimed


async def test_held_runs_are_told_apart_from_due_ones(pool: Pool, lines: Lines) -> None:
    """A worker more would not help them: they are neither due, nor is the oldest of them."""
    full, partly, other = new_id(), new_id(), new_id()
    for workspace_id, cap in ((full, 1), (partly, 4)):
        await set_limits(pool, workspace_id, running_runs=cap)
        await lines.queue([workspace_id], 1)
        assert len(await claim_runs(pool, "worker", 600, 1)) == 1
    await lines.queue([full, partly], 2, due_s=500)
    await lines.queue([full, partly], 2, BACKGROUND, due_s=50)
    await lines.queue([other], 3, due_s=5)
    interactive, background = await measure_queue(pool)
    assert (interactive.queued, interactive.due, interactive.held, interactive.running) == (7, 5, 2, 2)
    assert (background.queued, background.due, background.held) == (4, 1, 3)
    await set_limits(pool, partly, running_runs=1)
    interactive, background = await measure_queue(pool)
    assert (interactive.due, background.due, background.oldest_due_s) == (3, 0, None)
    assert interactive.oldest_due_s is not None
    assert 5 <= interactive.oldest_due_s < 400


async def test_next_run_is_rung_for_when_one_ends(settings: Settings, pool: Pool, redis: Redis) -> None:
    """For whoever has room for it: its own bell was heard while the workspace was at its cap."""
    capped = msgspec.structs.replace(settings, limit_running_runs=1)
    await _cap(pool, 1)
    may_end = asyncio.Event()
    runs = RunningRuns(worker_resources(capped, pool, redis, ScriptedProvider([may_end, *says("one")], says("two"))))
    first = await seed_run(pool, provider="scripted")
    await seed_run(pool, provider="scripted", workspace_id=first.workspace_id, priority=BACKGROUND)
    urgent = await seed_run(pool, provider="scripted", workspace_id=first.workspace_id)
    await runs.claim_due()
    assert (runs.running, await _bells(redis)) == (1, {INTERACTIVE: 0, BACKGROUND: 0})
    may_end.set()
    await eventually(lambda: not runs.running)
    assert await read_one(pool, first, "state") == ("completed",)
    assert await _bells(redis) == {INTERACTIVE: 1, BACKGROUND: 0}
    await runs.answer_bell(INTERACTIVE)
    await eventually(lambda: not runs.running)
    assert await read_one(pool, urgent, "state") == ("completed",)
    assert await _bells(redis) == {INTERACTIVE: 1, BACKGROUND: 1}


async def test_held_run_begins_at_once_where_there_is_room(settings: Settings, pool: Pool, redis: Redis) -> None:
    """The worker whose run has ended need not be the one that takes the next; none of them looks by itself."""
    capped = msgspec.structs.replace(settings, limit_running_runs=1, sweep_s=3_600)
    await _cap(pool, 1)
    may_end = asyncio.Event()
    deaf = RunningRuns(worker_resources(capped, pool, redis, ScriptedProvider([may_end, *says("one")])))
    free = RunningRuns(worker_resources(capped, pool, redis, ScriptedProvider(*[says("more")] * 3)))
    runs = [await seed_run(pool, provider="scripted")]
    runs += [await seed_run(pool, provider="scripted", workspace_id=runs[0].workspace_id) for _ in range(3)]
    await deaf.claim_due()
    listening = asyncio.create_task(answer_bells(capped, free, INTERACTIVE))
    try:
        await free.answer_bell(INTERACTIVE)
        assert free.running == 0
        may_end.set()
        for seeded in runs:
            await eventually(partial(_has_completed, pool, seeded))
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def test_nobody_is_rung_for_where_no_cap_is(settings: Settings, pool: Pool, redis: Redis) -> None:
    """A run that waits for a worker is not told of at each end of another one."""
    runs = RunningRuns(worker_resources(settings, pool, redis, ScriptedProvider(says("one"))))
    first = await seed_run(pool, provider="scripted")
    await seed_run(pool, provider="scripted", workspace_id=first.workspace_id)
    await runs.answer_bell(INTERACTIVE)
    await eventually(lambda: not runs.running)
    assert await _bells(redis) == {INTERACTIVE: 0, BACKGROUND: 0}


@pytest.mark.parametrize("crashes", [0, 9], ids=["goes back", "is ended"])
async def test_next_run_is_rung_for_when_the_sweep_frees_a_place(
    settings: Settings, pool: Pool, redis: Redis, crashes: int
) -> None:
    """Whoever sweeps may have no room: a worker that has some hears of it, whether the crashed run goes on or not."""
    capped = msgspec.structs.replace(settings, limit_running_runs=1, lease_s=0.2, heartbeat_s=0.1, sweep_s=0.02)
    await _cap(pool, 1)
    crashed = await seed_run(pool)
    held = await seed_run(pool, workspace_id=crashed.workspace_id, priority=BACKGROUND)
    assert len(await claim_runs(pool, "another worker", 600, 5)) == 1
    await write(pool, crashed, "update runs set crashes_total = $1 where id = $2", crashes, crashed.run.id)
    await expire_lease(pool, crashed)
    resources = worker_resources(capped, pool, redis)
    sweeping = asyncio.create_task(sweep(resources, RunningRuns(resources)))
    expected = BACKGROUND if crashes else INTERACTIVE

    async def rung() -> bool:
        return (await _bells(redis))[expected] == 1

    await eventually(rung)
    sweeping.cancel()
    await asyncio.wait({sweeping})
    assert await read_one(pool, held, "state") == ("queued",)


async def _has_completed(pool: Pool, seeded: Seeded) -> bool:
    return await read_one(pool, seeded, "state") == ("completed",)


async def _bells(redis: Redis) -> dict[Priority, int]:
    return {priority: await redis.zcard(queue) for priority, queue in QUEUES.items()}
