"""A tool that kills its worker takes no other run down that one more crash would end."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from common.ids import new_id
from common.model.messages import AgentSettings
from common.model.run_state import Effect, Outcome, Priority
from common.model.steps import LedgerCall
from common.store.run_transitions import RunSpec
from tests.support.eventually import eventually
from worker.run.last_chances import LastChances
from worker.run.observer import Observer
from worker.run.tool_calls import Performance, ToolRunner
from worker.tools.base import ToolContext, tool

_STEPS_DONE = 1
_inside: dict[str, asyncio.Event] = {}


@tool(effect=Effect.IDEMPOTENT)
async def linger(context: ToolContext) -> str:
    """Stays until it is let go."""
    await _inside.setdefault(context.tool_call_id, asyncio.Event()).wait()
    return "done"


@tool(effect=Effect.AT_MOST_ONCE)
async def once(context: ToolContext) -> str:
    """Must not happen twice."""
    raise AssertionError(context.tool_call_id)


class Ledger:
    """Remembers which calls have begun and ended."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[tuple[str, Outcome]] = []

    async def start_call(self, call: LedgerCall) -> None:
        self.started.append(call.id)

    async def finish_call(self, call: LedgerCall, content: str, outcome: Outcome, *, started: bool) -> None:
        self.finished.append((call.id, outcome))

    async def perform_call(self, call: LedgerCall, perform: Performance) -> None:
        raise AssertionError(call.id)


@pytest.fixture
def ledger() -> Ledger:
    """One for all runs of the test."""
    _inside.clear()
    return Ledger()


async def test_suspects_take_turns(ledger: Ledger) -> None:
    """What an earlier attempt began waits for another run's turn to end; within a run calls are parallel as ever."""
    chances = LastChances()
    first = asyncio.create_task(_runner(ledger, chances).run([_call("a"), _call("b")]))
    await eventually(lambda: len(_inside) == 2)
    second = asyncio.create_task(_runner(ledger, chances).run([_call("c")]))
    done, _ = await asyncio.wait({second}, timeout=0.1)
    assert not done
    assert ledger.started == ["a", "b"]
    _inside["a"].set()
    _inside["b"].set()
    await eventually(lambda: "c" in _inside)
    _inside["c"].set()
    await asyncio.gather(first, second)


@pytest.mark.parametrize(
    ("last_chance", "step"), [(False, _STEPS_DONE), (True, _STEPS_DONE + 1)], ids=["no suspect", "after progress"]
)
async def test_others_wait_for_nobody(ledger: Ledger, last_chance: bool, step: int) -> None:
    """A run that has not crashed twice, and a step that is progress, need no turn."""
    chances = LastChances()
    suspect = asyncio.create_task(_runner(ledger, chances).run([_call("suspect")]))
    await eventually(lambda: "suspect" in _inside)
    other = asyncio.create_task(_runner(ledger, chances, last_chance).run([_call("other", step=step)]))
    await eventually(lambda: "other" in _inside)
    for event in _inside.values():
        event.set()
    await asyncio.gather(suspect, other)


async def test_unknown_outcome_waits_for_nobody(ledger: Ledger) -> None:
    """What is not run again cannot kill: it is told as unknown at once."""
    chances = LastChances()
    async with chances.turn():
        async with asyncio.timeout(5):
            await _runner(ledger, chances).run([_call("x", name="once", effect=Effect.AT_MOST_ONCE, state="started")])
    assert ledger.finished == [("x", Outcome.UNKNOWN)]


async def test_turn_that_does_not_come_is_gone_without(ledger: Ledger) -> None:
    """A slow tool of one suspect holds up the others for a while, not for ever; its turn stays its own."""
    chances = LastChances(patience_s=0.05)
    async with chances.turn():
        for _ in range(2):
            async with asyncio.timeout(5), chances.turn():
                pass
    async with asyncio.timeout(0.04), chances.turn():
        pass


async def test_turn_is_given_back_by_who_is_cancelled(ledger: Ledger) -> None:
    """A cancelled run, inside its turn or waiting for it, is in nobody's way."""
    chances = LastChances()
    first = asyncio.create_task(_runner(ledger, chances).run([_call("a")]))
    await eventually(lambda: "a" in _inside)
    waiting = asyncio.create_task(_runner(ledger, chances).run([_call("b")]))
    await asyncio.sleep(0)
    for task in (waiting, first):
        task.cancel()
        await asyncio.wait({task})
    async with asyncio.timeout(5), chances.turn():
        pass


def _runner(ledger: Ledger, chances: LastChances, last_chance: bool = True) -> ToolRunner:
    spec = RunSpec(
        id=new_id(),
        workspace_id=new_id(),
        conversation_id=new_id(),
        trigger_message_id=new_id(),
        turn=1,
        agent_id=None,
        provider="scripted",
        model="scripted",
        instructions="",
        tools=["linger", "once"],
        settings=AgentSettings(),
        priority=Priority.INTERACTIVE,
        max_steps=5,
        step_count=_STEPS_DONE,
        step_finish_reason=None,
        run_seconds=0,
        last_chance=last_chance,
        cancel_requested=False,
        created_by="alice",
    )
    tools, observer = {"linger": linger, "once": once}, Observer(spec, 0, {})
    return ToolRunner(tools, ledger, spec, lambda: 3, 30, chances, cast(Redis, None), observer)


def _call(id_: str, **fields: Any) -> LedgerCall:
    call: dict[str, Any] = {
        "name": "linger",
        "step": _STEPS_DONE,
        "effect": Effect.IDEMPOTENT,
        "state": "pending",
        **fields,
    }
    return LedgerCall(
        id=id_, run_id=new_id(), message_id=new_id(), index=0, arguments={}, invalid=None, provider_call_id=None, **call
    )
