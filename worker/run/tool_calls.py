"""Runs the calls of a step, in parallel, each by its effect class. A call always gets a result."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Protocol

from redis.asyncio import Redis

from common.failpoints import failpoint
from common.model.run_state import Effect, Outcome
from common.model.steps import LedgerCall
from common.redis import REDIS_DOWN
from common.settle import UNKNOWN_OUTCOME
from common.store.database import Connection
from common.store.run_transitions import RunSpec
from worker.run.last_chances import LastChances
from worker.run.observer import Observer
from worker.tools.base import Access, Tool, ToolContext, idempotency_key
from worker.tools.execute import ToolOutcome, execute
from worker.tools.transaction import Announcement, ReadContext, TransactionContext, execute_within

Performance = Callable[[Connection], Awaitable[ToolOutcome]]
"""Carries a call out within a transaction."""


class Ledger(Protocol):
    """Where calls are noted before and after."""

    async def start_call(self, call: LedgerCall) -> None: ...

    async def finish_call(self, call: LedgerCall, content: str, outcome: Outcome, *, started: bool) -> None: ...

    async def perform_call(self, call: LedgerCall, perform: Performance) -> None: ...


class ToolRunner:
    """The tools that one run may use."""

    def __init__(
        self,
        tools: Mapping[str, Tool],
        ledger: Ledger,
        spec: RunSpec,
        attempt: Callable[[], int],
        timeout_s: float,
        last_chances: LastChances,
        redis: Redis,
        observer: Observer,
    ) -> None:
        self._tools = tools
        self._ledger = ledger
        self._spec = spec
        self._attempt = attempt
        self._timeout_s = timeout_s
        self._last_chances = last_chances
        self._redis = redis
        self._observer = observer

    async def run(self, calls: list[LedgerCall]) -> None:
        """Every call has its result when this returns. When it is cancelled, so are the tools."""
        try:
            async with self._turn(calls), asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._run_call(call), name=f"call {call.name}")
        except ExceptionGroup as failures:  # the first one ended the others; a lost lease must stay recognisable
            raise failures.exceptions[0] from None

    def _turn(self, calls: list[LedgerCall]) -> AbstractAsyncContextManager[None]:
        """Of a run on its last chance, what an earlier attempt began is the suspect; a new step is progress."""
        suspect = self._spec.last_chance and any(
            call.step <= self._spec.step_count and not _in_doubt(call) for call in calls
        )
        return self._last_chances.turn() if suspect else nullcontext()

    async def _run_call(self, call: LedgerCall) -> None:
        if _in_doubt(call):
            await self._ledger.finish_call(call, UNKNOWN_OUTCOME, Outcome.UNKNOWN, started=False)
            return
        tool = self._tools.get(call.name)
        refusal = call.invalid or (f"There is no tool named {call.name!r}." if tool is None else None)
        if refusal is not None or tool is None:
            await self._ledger.finish_call(call, refusal or "", Outcome.ERROR, started=False)
            return
        if tool.access is not Access.NONE:
            await self._perform(tool, call)
            return
        await self._ledger.start_call(call)
        await failpoint("tool.before_effect")
        with self._observer.tool_call(call.name, call.id) as seen:
            answer = await execute(tool, call.arguments, ToolContext(**self._known(call)), timeout_s=self._timeout_s)
            seen.outcome = answer.outcome
        await failpoint("tool.after_effect")
        await self._ledger.finish_call(call, answer.content, answer.outcome, started=True)

    async def _perform(self, tool: Tool, call: LedgerCall) -> None:
        """What is done in our own database and its result are one commit, which waits for Postgres as every commit
        does; who else is to know hears of it afterwards, or finds it.
        """
        announcements: list[Announcement] = []

        async def perform(connection: Connection) -> ToolOutcome:
            announcements.clear()  # of an earlier try that was not committed
            if tool.access is Access.READS:
                context = ReadContext(**self._known(call), connection=connection)
            else:
                context = TransactionContext(**self._known(call), connection=connection, afterwards=announcements)
            await failpoint("tool.before_effect")
            with self._observer.tool_call(call.name, call.id) as seen:
                outcome = await execute_within(tool, call.arguments, context)
                seen.outcome = outcome.outcome
            await failpoint("tool.after_effect")
            if outcome.is_error:
                announcements.clear()
            return outcome

        await self._ledger.perform_call(call, perform)
        with suppress(*REDIS_DOWN):
            for announce in announcements:
                await announce(self._redis)

    def _known(self, call: LedgerCall) -> dict[str, Any]:
        return {
            "run_id": self._spec.id,
            "conversation_id": self._spec.conversation_id,
            "workspace_id": self._spec.workspace_id,
            "user": self._spec.created_by,
            "tool_call_id": call.id,
            "idempotency_key": idempotency_key(self._spec.id, call.id),
            "attempt": self._attempt(),
        }


def _in_doubt(call: LedgerCall) -> bool:
    """Whether nobody can tell if its effect has happened, and it must not happen twice."""
    return call.state == "started" and call.effect is Effect.AT_MOST_ONCE
