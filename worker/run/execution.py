"""One attempt at one run, from its claim to its end: open, loop, settle or hand back."""

import asyncio
from collections.abc import Mapping
from enum import Enum
from functools import partial

import structlog
from structlog.contextvars import bound_contextvars

from common.errors import LeaseLost
from common.model.events import Started
from common.model.messages import EventMessage
from common.model.run_state import FinishReason, RunErrorCode
from common.settle import CancelledBy, Completed, Failed, RunOutcome
from common.store.database import DATABASE_DOWN, workspace_transaction
from common.store.run_transitions import RunSpec
from worker.metrics import LEASES_LOST
from worker.providers.base import Provider, ProviderError
from worker.run.journal import Journal, Opening, begin_attempt, open_attempt
from worker.run.lease import Lease
from worker.run.loop import Plan, run_loop
from worker.run.observer import Observer
from worker.run.resources import Resources
from worker.run.sink import Sink
from worker.run.tool_calls import ToolRunner
from worker.run.turn import TurnLimits
from worker.tools.base import Tool

_log = structlog.get_logger(__name__)
_LAST_EVENTS_S = 5.0


class Stop(Enum):
    """Why the loop is cancelled before its end."""

    CANCEL = "cancel"
    DEADLINE = "deadline"
    DRAIN = "drain"
    LOST = "lost"


class _Drained(Exception):
    """The worker is leaving, and this run stands between two steps."""


class _BudgetExceeded(Exception):
    """The workspace or the user has spent the tokens of this day."""

    def __init__(self, limit: str, most: int) -> None:
        super().__init__(f"{limit} is reached: {most:,} tokens until midnight, UTC")


class Execution:
    """The attempt as its worker holds it. `run` does it all; `stop` and `drain` may be called from outside."""

    def __init__(self, resources: Resources, lease: Lease) -> None:
        self._resources = resources
        self._lease = lease
        self._body: asyncio.Task[FinishReason] | None = None
        self._stop: Stop | None = None
        self._draining = False
        lease.on_cancel = lambda: self.stop(Stop.CANCEL)
        lease.on_lost = lambda: self.stop(Stop.LOST)

    def stop(self, why: Stop) -> None:
        """Cancels the loop; the first reason counts, but for a lost lease, which overrides all."""
        if self._stop is None or why is Stop.LOST:
            self._stop = why
        if self._body is not None:
            self._body.cancel()  # again, when asked again: what swallowed the first one may let the next one pass

    def drain(self) -> None:
        """Hands the run back at the end of its current step."""
        self._draining = True

    async def run(self) -> None:
        """Never raises for what may happen to a run; a lost lease ends it without a word."""
        lease = self._lease
        with bound_contextvars(
            run_id=str(lease.run_id), workspace_id=str(lease.workspace_id), attempt=lease.claimed_attempt
        ):
            await self._run_attempt()

    async def _run_attempt(self) -> None:
        try:
            opening = await open_attempt(self._resources.pool, self._lease)
            sink = self._open_sink(opening.spec, opening.messages)
            try:
                await self._run(opening, sink)
            finally:
                await sink.close()
        except LeaseLost:
            LEASES_LOST.inc()
            _log.warning("lease_lost", run_id=str(self._lease.run_id), attempt=self._lease.attempt)

    async def _run(self, opening: Opening, sink: Sink) -> None:
        observer = Observer(opening.spec, self._lease.claimed_at, self._resources.models)
        with observer.attempt(self._lease.claimed_attempt):
            await self._run_observed(opening, sink, observer)

    async def _run_observed(self, opening: Opening, sink: Sink, observer: Observer) -> None:
        journal = Journal(self._resources.pool, self._lease, sink, opening.spec, observer)
        outcome = await self._outcome(opening, journal, sink, observer)
        observer.ends(outcome)
        if outcome is None:
            await journal.hand_back()
            await self._resources.bell.ring(opening.spec.id, opening.spec.priority)
            return
        settled = await journal.settle(outcome)
        if settled.promoted is not None:
            await self._resources.bell.ring(settled.promoted.run_id, settled.promoted.priority)
        await sink.drain(_LAST_EVENTS_S)

    async def _outcome(self, opening: Opening, journal: Journal, sink: Sink, observer: Observer) -> RunOutcome | None:
        """How the run ends; None when it is to be handed back."""
        spec = opening.spec
        if spec.cancel_requested:
            return CancelledBy()
        provider = self._resources.providers.get(spec.provider)
        if provider is None:
            message = f"this worker has no provider {spec.provider!r}, or no key for it"
            return Failed(RunErrorCode.PROVIDER_REJECTED, message, retryable=False)
        remaining_s = max(0.0, self._resources.settings.run_deadline_s - spec.run_seconds)
        timer = asyncio.get_running_loop().call_later(remaining_s, self.stop, Stop.DEADLINE)
        try:
            return Completed(await self._loop(opening, provider, journal, observer))
        except ProviderError as error:
            code = RunErrorCode.PROVIDER_ERROR if error.retryable else RunErrorCode.PROVIDER_REJECTED
            return Failed(code, error.message, error.retryable, sink.partial_text or None)
        except _Drained:
            return None
        except _BudgetExceeded as spent:
            return Failed(RunErrorCode.BUDGET_EXCEEDED, str(spent), retryable=False)
        except asyncio.CancelledError:
            return self._stopped(sink)
        except LeaseLost:
            raise
        except Exception:
            _log.exception("run_failed", run_id=str(spec.id))
            return Failed(RunErrorCode.INTERNAL, "an internal error ended the run", True, sink.partial_text or None)
        finally:
            timer.cancel()

    async def _loop(self, opening: Opening, provider: Provider, journal: Journal, observer: Observer) -> FinishReason:
        spec = opening.spec
        tools = _chosen(self._resources.tools, spec.tools)
        settings = self._resources.settings
        limits = await self._resources.limits.read(spec.workspace_id)
        plan = Plan(
            model=spec.model,
            instructions=spec.instructions,
            settings=spec.settings,
            tools=tools,
            max_steps=spec.max_steps,
            limits=TurnLimits(
                first_token_s=settings.provider_first_token_s,
                silence_s=settings.provider_silence_s,
                retries=settings.provider_retries,
                budget=self._resources.retry_budgets[spec.provider],
            ),
            steps_done=spec.step_count,
            open_calls=opening.open_calls,
            finish_reason=spec.step_finish_reason,
            calls_made=opening.calls_made,
            max_calls_per_step=limits.tool_calls_per_step,
            max_calls=limits.tool_calls_per_run,
        )
        runner = ToolRunner(
            tools,
            journal,
            spec,
            lambda: self._lease.attempt,
            settings.tool_timeout_s,
            self._resources.last_chances,
            self._resources.redis,
            observer,
        )
        self._body = asyncio.create_task(
            run_loop(plan, provider, journal, runner.run, partial(self._between_steps, spec)), name=f"loop {spec.id}"
        )
        if self._stop is not None:  # asked while there was nothing to cancel yet
            self._body.cancel()
        try:
            return await self._body
        finally:
            self._body.cancel()

    async def _between_steps(self, spec: RunSpec) -> None:
        if self._stop is not None:  # some libraries swallow a cancellation that meets their own end
            raise asyncio.CancelledError
        if self._draining:
            raise _Drained
        await self._check_budget(spec)

    async def _check_budget(self, spec: RunSpec) -> None:
        resources = self._resources
        limits = await resources.limits.read(spec.workspace_id)
        open_transaction = partial(workspace_transaction, resources.pool, spec.workspace_id)
        try:
            name = await resources.budget.exceeded(limits, spec.workspace_id, spec.created_by, open_transaction)
        except DATABASE_DOWN as error:
            # The step waits for Postgres by itself; what cannot be counted now is counted before the next one.
            _log.warning("budget_not_read", run_id=str(spec.id), error=type(error).__name__)
            return
        if name is not None:
            raise _BudgetExceeded(name, getattr(limits, name))

    def _stopped(self, sink: Sink) -> RunOutcome | None:
        match self._stop:
            case Stop.CANCEL:
                return CancelledBy(partial_text=sink.partial_text or None)
            case Stop.DEADLINE:
                limit_s = self._resources.settings.run_deadline_s
                message = f"the run took longer than {limit_s:g} s"
                return Failed(RunErrorCode.DEADLINE_EXCEEDED, message, True, sink.partial_text or None)
            case Stop.DRAIN:
                return None
            case Stop.LOST:
                raise LeaseLost
            case None:  # the worker itself is being torn down
                raise asyncio.CancelledError

    def _open_sink(self, spec: RunSpec, messages: list[EventMessage]) -> Sink:
        async def raise_attempt(attempt: int) -> int:
            return await begin_attempt(self._resources.pool, self._lease, attempt)

        sink = Sink(
            self._resources.log,
            Started(
                run_id=spec.id,
                conversation_id=spec.conversation_id,
                trigger_message_id=spec.trigger_message_id,
                agent_id=spec.agent_id,
                provider=spec.provider,
                model=spec.model,
                attempt=self._lease.attempt,
                messages=messages,
            ),
            lock=self._lease.lock,
            raise_attempt=raise_attempt,
            on_lost=self._lease.on_lost,
        )
        self._lease.on_suspend = sink.suspend
        self._lease.on_resume = sink.resume
        sink.open()
        return sink


def _chosen(offered: Mapping[str, Tool], names: list[str]) -> dict[str, Tool]:
    """The snapshot's tools that this worker has; a call of another is answered as unknown."""
    return {name: offered[name] for name in names if name in offered}
