"""The runs of one worker: claimed, played side by side, handed back when it leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.model.run_state import Effect, Priority
from common.queue import QUEUES
from common.store.database import Pool
from tests.support.eventually import eventually
from tests.support.probed_pool import ProbedPool
from tests.support.scripted_provider import Script, ScriptedProvider, calls, says
from tests.support.seed import seed_run
from tests.support.worker_life import crash, read, read_one, worker_resources
from worker.job import RunningRuns
from worker.providers.base import TextDelta
from worker.tools.base import tool

HANDED_BACK = "state, lease_owner, crashes_total, open_tool_calls"
MODEL_CALLS = "select state from model_calls order by started_at"
Open = Callable[[ScriptedProvider], RunningRuns]
Probe = Callable[[ProbedPool], None]


@tool(effect=Effect.READ)
async def look() -> str:
    """Looks."""
    return "found"


@pytest.fixture
def probed(pool: Pool) -> ProbedPool:
    """The pool that the worker sees."""
    return ProbedPool(pool)


@pytest.fixture
async def open_runs(settings: Settings, probed: ProbedPool, redis: Redis) -> AsyncIterator[Open]:
    """A worker's runs, all played by one provider; whatever a test leaves behind is drained."""
    opened: list[RunningRuns] = []

    def open_runs(provider: ScriptedProvider) -> RunningRuns:
        opened.append(RunningRuns(worker_resources(settings, probed.as_pool, redis, provider, {"look": look})))
        return opened[-1]

    yield open_runs
    probed.mend()
    probed.resume()
    for runs in opened:
        await runs.drain(0.1)


async def test_drain_starts_and_hands_back_what_is_being_claimed(
    open_runs: Open, probed: ProbedPool, pool: Pool
) -> None:
    """A run whose claim is answered while the worker leaves is not left to its lease."""
    claimed, may_answer = asyncio.Event(), asyncio.Event()

    async def answer_late() -> None:
        claimed.set()
        await may_answer.wait()

    probed.after("claim_runs", answer_late)
    seeded = await seed_run(pool, provider="scripted")
    runs = open_runs(provider := ScriptedProvider(says("hi")))
    claiming = asyncio.create_task(runs.claim_due())
    await claimed.wait()
    draining = asyncio.create_task(runs.drain(5))
    await eventually(lambda: runs.free == 0)
    may_answer.set()
    await asyncio.gather(claiming, draining)
    assert await read_one(pool, seeded, HANDED_BACK) == ("queued", None, 0, 0)
    assert provider.requests == []


async def test_drain_lets_the_current_step_finish(open_runs: Open, pool: Pool) -> None:
    """The step that is under way is committed with its results before the run is handed back."""
    may_end = asyncio.Event()
    seeded = await seed_run(pool, provider="scripted", tools=("look",))
    runs = open_runs(provider := ScriptedProvider([TextDelta("let me"), may_end, *calls(("look", "{}"))]))
    await runs.claim_due()
    await eventually(lambda: provider.requests)
    draining = asyncio.create_task(runs.drain(10))
    await eventually(lambda: runs.free == 0)
    may_end.set()
    await draining
    assert await read_one(pool, seeded, HANDED_BACK) == ("queued", None, 0, 0)
    assert await read(pool, seeded, "select role from messages order by position") == [
        ("user",),
        ("assistant",),
        ("tool",),
    ]


async def test_run_that_is_handed_back_is_rung_for_where_it_is_served(
    open_runs: Open, pool: Pool, redis: Redis
) -> None:
    """A background run's bell goes to the workers that take background runs."""
    await seed_run(pool, provider="scripted", priority=Priority.BACKGROUND)
    runs = open_runs(provider := ScriptedProvider([TextDelta("endless"), asyncio.Event()]))
    await runs.claim_due()
    await eventually(lambda: provider.requests)
    await runs.drain(0.01)
    bells = {priority: await redis.zcard(queue) for priority, queue in QUEUES.items()}
    assert bells == {Priority.INTERACTIVE: 0, Priority.BACKGROUND: 1}


async def test_drain_cuts_a_step_that_outlasts_the_grace(open_runs: Open, pool: Pool) -> None:
    """Its stream is closed and metered, nothing of it is committed, and no crash is counted."""
    seeded = await seed_run(pool, provider="scripted")
    runs = open_runs(provider := ScriptedProvider([TextDelta("endless"), asyncio.Event()]))
    await runs.claim_due()
    await eventually(lambda: provider.requests)
    await runs.drain(0.01)
    assert await read_one(pool, seeded, HANDED_BACK) == ("queued", None, 0, 0)
    assert await read(pool, seeded, MODEL_CALLS) == [("cancelled",)]
    assert provider.closed_early == 1


async def test_worker_that_drains_claims_no_more(open_runs: Open, pool: Pool) -> None:
    """A bell that rings on the way out is left to others."""
    runs = open_runs(ScriptedProvider())
    await runs.drain(1)
    seeded = await seed_run(pool, provider="scripted")
    await runs.answer_bell(Priority.INTERACTIVE)
    await runs.claim_due()
    assert await read_one(pool, seeded, "state") == ("queued",)


@pytest.mark.parametrize(
    ("leave", "come_back"),
    [(ProbedPool.cut, ProbedPool.mend), (ProbedPool.pause, ProbedPool.resume)],
    ids=["refuses", "stands still"],
)
async def test_drain_ends_although_postgres_is_gone(
    open_runs: Open, probed: ProbedPool, pool: Pool, monkeypatch: pytest.MonkeyPatch, leave: Probe, come_back: Probe
) -> None:
    """What cannot be handed back is left to its lease within seconds; nothing else happens to the run."""
    monkeypatch.setattr("worker.job._HAND_BACK_S", 0.1)
    seeded = await seed_run(pool, provider="scripted")
    runs = open_runs(provider := ScriptedProvider([TextDelta("endless"), asyncio.Event()]))
    await runs.claim_due()
    await eventually(lambda: provider.requests)
    leave(probed)
    async with asyncio.timeout(5):
        await runs.drain(0.1)
    assert await read_one(pool, seeded, "state, attempt, crashes_total") == ("running", 1, 0)
    come_back(probed)
    await eventually(lambda: not _still_playing())


async def test_run_that_is_claimed_again_is_played_once(open_runs: Open, pool: Pool) -> None:
    """A worker that takes up its own expired run ends the older execution, and a cancel reaches the newer one."""
    seeded = await seed_run(pool, provider="scripted")
    endless: Script = [TextDelta("endless"), asyncio.Event()]
    runs = open_runs(provider := ScriptedProvider(endless, endless))
    await runs.claim_due()
    await eventually(lambda: provider.requests)
    await crash(pool, seeded)
    await runs.claim_due()
    await eventually(lambda: provider.closed_early == 1)
    await eventually(lambda: len(provider.requests) == 2 and len(_still_playing()) == 1)
    runs.cancel(seeded.run.id)
    await eventually(lambda: not _still_playing())
    assert await read_one(pool, seeded, "state, attempt, crashes_total") == ("cancelled", 2, 1)
    assert await read(pool, seeded, MODEL_CALLS) == [("crashed",), ("cancelled",)]


async def test_full_worker_leaves_due_runs_to_others(settings: Settings, pool: Pool, redis: Redis) -> None:
    """It claims no more than it has room for, and takes the next as soon as one has ended."""
    full = msgspec.structs.replace(settings, worker_max_runs=1)
    may_end = asyncio.Event()
    provider = ScriptedProvider([may_end, *says("one")], says("two"))
    runs = RunningRuns(worker_resources(full, pool, redis, provider))
    seeded = [await seed_run(pool, provider="scripted") for _ in range(2)]
    await runs.claim_due()
    await runs.answer_bell(Priority.INTERACTIVE)
    assert sorted([await read_one(pool, one, "state") for one in seeded]) == [("queued",), ("running",)]
    may_end.set()
    await runs.has_room()
    await runs.answer_bell(Priority.INTERACTIVE)
    await eventually(lambda: not _still_playing())
    assert [await read_one(pool, one, "state") for one in seeded] == [("completed",)] * 2


async def test_run_whose_bell_fetched_a_more_urgent_one_is_not_forgotten(open_runs: Open, pool: Pool) -> None:
    """The other's bell may be with a worker that serves no background runs, and nobody rings for this one again."""
    background = await seed_run(pool, provider="scripted", priority=Priority.BACKGROUND)
    urgent = await seed_run(pool, provider="scripted")
    more = await seed_run(pool, provider="scripted")
    runs = open_runs(ScriptedProvider([asyncio.Event()], [asyncio.Event()]))
    await runs.answer_bell(Priority.BACKGROUND)
    assert [await read_one(pool, one, "state") for one in (background, urgent, more)] == [
        ("running",),
        ("running",),
        ("queued",),
    ]


@pytest.mark.parametrize("served", Priority)
async def test_worker_takes_the_priorities_that_it_serves(
    settings: Settings, pool: Pool, redis: Redis, served: Priority
) -> None:
    """Rung for or not, runs of the other priority are left to others."""
    seeded = {priority: await seed_run(pool, provider="scripted", priority=priority) for priority in Priority}
    provider = ScriptedProvider(says("one"))
    settings = msgspec.structs.replace(settings, worker_priorities=(served,))
    runs = RunningRuns(worker_resources(settings, pool, redis, provider))
    await runs.claim_due()
    await runs.answer_bell(served)
    await eventually(lambda: not _still_playing())
    states = {priority: await read_one(pool, one, "state") for priority, one in seeded.items()}
    assert states == {priority: ("completed" if priority is served else "queued",) for priority in Priority}


async def test_worker_takes_more_than_one_claim_holds(
    open_runs: Open, pool: Pool, probed: ProbedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is due is taken at once, as long as there is room; in several claims where it is much."""
    monkeypatch.setattr("worker.job._CLAIMS_AT_ONCE", 2)
    workspace_id = (await seed_run(pool, provider="scripted")).workspace_id
    for _ in range(4):
        await seed_run(pool, provider="scripted", workspace_id=workspace_id)
    endless: Script = [asyncio.Event()]
    runs = open_runs(ScriptedProvider(*[endless] * 5))
    room = runs.free
    await runs.claim_due()
    assert room - runs.free == 5


def _still_playing() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("run ")]
