"""The limits that workers keep: a budget that is spent ends a run between its steps."""

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.model.messages import Run
from common.model.run_state import Effect, RunErrorCode, RunState
from common.store.database import Pool, workspace_transaction
from common.store.runs import select_run
from tests.support.limits import forget_nothing, set_limits
from tests.support.scripted_provider import ScriptedProvider, calls, says
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import claim_execution, crash, read, told, worker_resources
from worker.tools.base import tool

LOOKS = calls(("look", '{"word": "fish"}'), usage=(10, 5))


@tool(effect=Effect.READ)
async def look(word: str) -> str:
    """Looks a word up."""
    return f"found {word}"


class Player:
    """Runs the one run that is due, with a model that calls a tool and then answers."""

    def __init__(self, settings: Settings, pool: Pool, redis: Redis) -> None:
        self._settings = settings
        self._pool = pool
        self._redis = redis
        self.events: list[Any] = []
        self.asked = 0

    async def play(self, workspace_id: UUID | None = None, again: Seeded | None = None, **limit: int) -> Run:
        changed: dict[str, Any] = {f"limit_{name}": value for name, value in limit.items()}
        settings = msgspec.structs.replace(self._settings, **changed)
        provider = ScriptedProvider(LOOKS, LOOKS, says("done"))
        seeded = again or await seed_run(self._pool, workspace_id=workspace_id, provider="scripted", tools=("look",))
        resources = worker_resources(settings, self._pool, self._redis, provider, {"look": look})
        async with asyncio.timeout(15):
            await (await claim_execution(resources)).run()
        self.events = list(await told(resources.log, seeded.run.id))
        self.asked = len(provider.requests)
        self.seeded = seeded
        async with workspace_transaction(self._pool, seeded.workspace_id) as connection:
            run = await select_run(connection, seeded.run.id)
        assert run is not None
        return run


@pytest.fixture
def player(settings: Settings, pool: Pool, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Player:
    """A worker that reads limits anew between steps."""
    forget_nothing(monkeypatch)
    return Player(settings, pool, redis)


async def test_run_beyond_the_budget_fails_between_its_steps(player: Player, pool: Pool) -> None:
    """The step that has spent it is kept, with its tool's result; the model is not asked again."""
    run = await player.play(tokens_per_day=15)
    assert run.error is not None
    assert (run.state, run.error.code, run.error.retryable) == (RunState.FAILED, RunErrorCode.BUDGET_EXCEEDED, False)
    assert (run.step_count, run.usage.input_tokens, player.asked) == (1, 10, 1)
    messages = await read(pool, player.seeded, "select role, content from messages where run_id is not null")
    assert messages == [("assistant", ""), ("tool", "found fish")]
    assert [event.__class__.__name__ for event in player.events[-3:]] == ["Step", "ToolResult", "Error"]
    assert player.events[-1].error.code is RunErrorCode.BUDGET_EXCEEDED


async def test_run_of_a_workspace_with_an_empty_budget_asks_no_model(player: Player, pool: Pool) -> None:
    """It was queued before the budget was spent; another workspace, and a budget of its own, are not touched."""
    first = await player.play(tokens_per_day=16)
    assert (first.state, first.step_count) == (RunState.FAILED, 2)
    spent = player.seeded.workspace_id
    second = await player.play(spent, tokens_per_day=16)
    assert (second.state, player.asked) == (RunState.FAILED, 0)
    assert (await player.play(tokens_per_day=100)).state is RunState.COMPLETED
    await set_limits(pool, spent, tokens_per_day=0)
    assert (await player.play(spent, tokens_per_day=16)).state is RunState.COMPLETED


async def test_budget_of_a_user_ends_their_runs(player: Player) -> None:
    """The tokens of all their runs count."""
    run = await player.play(user_tokens_per_day=30)
    assert run.error is not None
    assert (run.error.code, run.step_count) == (RunErrorCode.BUDGET_EXCEEDED, 2)


async def test_tool_calls_of_a_run_are_counted_across_attempts(player: Player, pool: Pool) -> None:
    """One call too many is answered to the model, which goes on; a crash forgets none of them."""
    run = await player.play(tool_calls_per_run=1)
    assert run.state is RunState.COMPLETED
    results = await read(pool, player.seeded, "select content from messages where role = 'tool' order by position")
    assert results[0] == ("found fish",)
    assert "tool calls that one run may make" in results[1][0]


async def test_calls_before_a_crash_count_after_it(
    settings: Settings, pool: Pool, redis: Redis, player: Player
) -> None:
    """The attempt that goes on knows what earlier ones have called."""
    halted = asyncio.Event()
    provider = ScriptedProvider(LOOKS, [halted])
    seeded = await seed_run(pool, provider="scripted", tools=("look",))
    execution = await claim_execution(worker_resources(settings, pool, redis, provider, {"look": look}))
    running = asyncio.create_task(execution.run())
    while len(provider.requests) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await crash(pool, seeded)
    run = await player.play(again=seeded, tool_calls_per_run=1)
    assert run.state is RunState.COMPLETED
    results = await read(pool, seeded, "select content from messages where role = 'tool' order by position")
    assert [("Not run" in content) for (content,) in results] == [False, True, True]
