"""Each call of a model is one row, however it ended, and the row outlives what it was made for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.ids import new_id
from common.model.messages import Usage
from common.model.run_state import Effect, RunErrorCode
from common.settle import CancelledBy, Failed, settle
from common.store.database import Pool, workspace_transaction
from common.store.model_calls import begin_model_call
from tests.support.eventually import eventually
from tests.support.scripted_provider import ScriptedProvider, calls, says
from tests.support.seed import USER, Seeded, seed_run
from tests.support.worker_life import claim_execution, claim_lease, crash, expire_lease, read, worker_resources, write
from worker.providers.base import Finish, HistoryMessage, ProviderError, TextDelta, UsageReport
from worker.run.execution import Execution, Stop
from worker.run.history import estimate_tokens
from worker.tools.base import tool

ASKED = estimate_tokens([HistoryMessage(role="user", content="hello")], "")
"""The estimate of a request that says hello."""

METER = """
    select state, step, input_tokens, output_tokens, estimated, error_code from model_calls order by started_at, id
"""
WHOLE = ("completed", 1, 10, 5, False, None)

Attempt = Callable[[ScriptedProvider], Awaitable[Execution]]


@tool(effect=Effect.READ)
async def look() -> str:
    """Looks."""
    return "found"


@pytest.fixture
async def seeded(pool: Pool) -> Seeded:
    """A run that is due."""
    return await seed_run(pool, provider="scripted", tools=("look",))


@pytest.fixture
def attempt(settings: Settings, pool: Pool, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Claims the run for a provider; retries do not wait."""
    monkeypatch.setattr("worker.run.turn._BACKOFF_S", 0)

    async def attempt(provider: ScriptedProvider) -> Execution:
        return await claim_execution(worker_resources(settings, pool, redis, provider, {"look": look}))

    return attempt


async def test_every_step_is_a_call(attempt: Attempt, seeded: Seeded, pool: Pool) -> None:
    """A run with a tool asks twice: two rows, with the figures of the provider."""
    provider = ScriptedProvider(calls(("look", "{}"), usage=(20, 7)), says("there", usage=(30, 9)))
    await (await attempt(provider)).run()
    assert await read(pool, seeded, METER) == [
        ("completed", 1, 20, 7, False, None),
        ("completed", 2, 30, 9, False, None),
    ]


async def test_call_whose_provider_gave_no_figures_is_estimated(attempt: Attempt, seeded: Seeded, pool: Pool) -> None:
    """A whole answer without a report of its tokens costs about what its text does, and says so."""
    await (await attempt(ScriptedProvider([TextDelta("eight ch" * 5), Finish("stop")]))).run()
    assert await read(pool, seeded, METER) == [("completed", 1, ASKED, 10, True, None)]


@pytest.mark.parametrize(
    ("begun", "row"),
    [
        ([], ("cancelled", 1, ASKED, 0, True, None)),
        ([TextDelta("eight ch" * 5)], ("cancelled", 1, ASKED, 10, True, None)),
        ([UsageReport(Usage(input_tokens=70)), TextDelta("eight ch")], ("cancelled", 1, 70, 2, True, None)),
    ],
    ids=["before a word", "in mid-stream", "the input told first"],
)
async def test_cancelled_call_is_estimated(
    attempt: Attempt, seeded: Seeded, pool: Pool, begun: list[Any], row: tuple[Any, ...]
) -> None:
    """One row, with what was asked and what had been said; figures that the provider gave by then are kept."""
    execution = await attempt(provider := ScriptedProvider([*begun, asyncio.Event()]))
    running = asyncio.create_task(execution.run())
    await eventually(lambda: provider.waiting)
    execution.stop(Stop.CANCEL)
    await running
    assert await read(pool, seeded, METER) == [row]


@pytest.mark.parametrize(
    ("broken", "row"),
    [
        ([TextDelta("eight ch"), ProviderError("overloaded", "no")], ("failed", 1, ASKED, 2, True, "overloaded")),
        ([TextDelta("eight ch")], ("failed", 1, ASKED, 2, True, "truncated")),
        ([ProviderError("rate_limited", "later", status=429)], ("failed", 1, 0, 0, True, "rate_limited")),
    ],
    ids=["in mid-stream", "truncated", "refused"],
)
async def test_call_that_failed_is_metered_beside_its_retry(
    attempt: Attempt, seeded: Seeded, pool: Pool, broken: list[Any], row: tuple[Any, ...]
) -> None:
    """Two requests are two rows: the broken one at an estimate (nothing, where it was refused), the other as told."""
    await (await attempt(ScriptedProvider(broken, says("hi")))).run()
    assert await read(pool, seeded, METER) == [row, WHOLE]


async def test_call_of_a_crashed_worker_is_closed_by_the_next(attempt: Attempt, seeded: Seeded, pool: Pool) -> None:
    """Who claims the run after a crash closes what was left open, at the estimate that it began with."""
    await _die_amid_a_call(pool, seeded)
    await crash(pool, seeded)
    await (await attempt(ScriptedProvider(says("hi")))).run()
    assert await read(pool, seeded, METER) == [("crashed", 1, 40, 0, True, None), WHOLE]


@pytest.mark.parametrize("by", ["sweep", "api"])
async def test_call_of_a_crashed_worker_is_closed_by_the_end(seeded: Seeded, pool: Pool, by: str) -> None:
    """A run that nobody claims again, since a sweep ends it or a user does, leaves no call open either."""
    await _die_amid_a_call(pool, seeded)
    if by == "sweep":
        await expire_lease(pool, seeded)
        end = await settle(
            pool, seeded.workspace_id, seeded.run.id, Failed(RunErrorCode.CRASH_LOOP, "", False), by="sweep", attempt=1
        )
    else:
        await crash(pool, seeded)
        end = await settle(pool, seeded.workspace_id, seeded.run.id, CancelledBy(), by="api")
    assert end is not None
    assert await read(pool, seeded, METER) == [("crashed", 1, 40, 0, True, None)]


async def test_late_answer_of_a_worker_that_lost_its_run_is_metered_once(
    attempt: Attempt, seeded: Seeded, pool: Pool
) -> None:
    """Its call was closed when another took the run over, and stays as it was closed; no row is added."""
    goes_on = asyncio.Event()
    zombie = await attempt(provider := ScriptedProvider([goes_on, *says("too late")]))
    late = asyncio.create_task(zombie.run())
    await eventually(lambda: provider.waiting)
    await crash(pool, seeded)
    await (await attempt(ScriptedProvider(says("hi")))).run()
    goes_on.set()
    await late
    assert await read(pool, seeded, METER) == [("crashed", 1, ASKED, 0, True, None), WHOLE]


async def test_call_names_whom_it_was_made_for(attempt: Attempt, seeded: Seeded, pool: Pool) -> None:
    """Conversation, agent and user of its run stand in the row itself, whoever inserted it."""
    agent_id = new_id()
    await write(pool, seeded, "update runs set agent_id = $1", agent_id)
    await (await attempt(ScriptedProvider(says("hi")))).run()
    query = "select conversation_id, agent_id, created_by from model_calls"
    assert await read(pool, seeded, query) == [(seeded.conversation_id, agent_id, USER)]


@pytest.mark.parametrize("table", ["runs", "conversations"])
async def test_call_outlives_what_it_was_made_for(attempt: Attempt, seeded: Seeded, pool: Pool, table: str) -> None:
    """Whoever deletes a run or its conversation for good leaves the meter as it was."""
    await (await attempt(ScriptedProvider(says("hi")))).run()
    await write(pool, seeded, f"delete from {table}")
    assert await read(pool, seeded, "select count(*) from runs") == [(0,)]
    assert await read(pool, seeded, METER) == [WHOLE]


async def _die_amid_a_call(pool: Pool, seeded: Seeded) -> None:
    """A worker claims the run, notes a call that it takes for 40 tokens, and is heard of no more."""
    lease = await claim_lease(pool, 10)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await begin_model_call(
            connection,
            call_id=new_id(),
            run_id=seeded.run.id,
            attempt=lease.attempt,
            lease_s=lease.lease_s,
            step=1,
            provider="scripted",
            model="echo",
            input_tokens=40,
        )
