"""What a run commits, and tells once it is committed. Every write is fenced by `(run id, attempt)`.

Each commit holds the lease's lock together with the events that follow it and is shielded from cancellation, so that
log and database go in step; it is repeated while Postgres is away, and recognises what an earlier try has written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar
from uuid import UUID

from common.errors import LeaseLost
from common.failpoints import failpoint
from common.ids import EventId, new_id
from common.model import events
from common.model.events import Event, Terminal
from common.model.messages import EventMessage, Message, Usage, for_event
from common.model.run_state import Outcome
from common.model.steps import CallEnd, LedgerCall, NewStep, PlannedCall
from common.settle import ClosedCall, RunOutcome, Settled, count_end, settle_within
from common.store.database import Connection, Pool, workspace_transaction
from common.store.model_calls import begin_model_call, close_crashed_calls, finish_model_call
from common.store.run_messages import (
    insert_tool_message,
    select_history,
    select_run_messages,
    select_step_message,
    select_tool_message,
)
from common.store.run_transitions import (
    RunSpec,
    hand_back,
    hold_run,
    raise_attempt,
    select_run_spec,
    update_first_token,
    update_open_tool_calls,
)
from common.store.steps import insert_step
from common.store.tool_calls import (
    count_calls,
    insert_tool_calls,
    select_call_is_finished,
    select_open_calls,
    update_call_finished,
    update_call_started,
)
from worker.run.commit import finish_even_if_cancelled, persistently
from worker.run.history import RESULT_CHARACTERS, estimate_tokens, to_history
from worker.run.lease import Lease
from worker.run.observer import Observer
from worker.run.sink import Sink
from worker.run.tool_calls import Performance
from worker.run.turn import BegunStep

T = TypeVar("T")


class Opening(NamedTuple):
    """Where an attempt begins: what to run, what is committed, which calls have no result yet, how many there are."""

    spec: RunSpec
    messages: list[EventMessage]
    open_calls: list[LedgerCall]
    calls_made: int = 0


async def open_attempt(pool: Pool, lease: Lease) -> Opening:
    """Reads the run that `lease` holds and closes the model calls that a crash cut off. Raises LeaseLost."""

    async def read(connection: Connection) -> Opening:
        is_first = lease.attempt == 1
        spec = await select_run_spec(connection, lease.run_id, lease.attempt, lock=not is_first)
        if is_first:
            return Opening(spec, [], [])
        await close_crashed_calls(connection, lease.run_id)
        messages = [for_event(message) for message in await select_run_messages(connection, lease.run_id)]
        open_calls = await select_open_calls(connection, lease.run_id)
        return Opening(spec, messages, open_calls, await count_calls(connection, lease.run_id))

    return await persistently(pool, lease, read)


async def begin_attempt(pool: Pool, lease: Lease, attempt: int) -> int:
    """Raises the attempt of our own run, for a log that was lost or is to be trimmed. The caller holds the lock."""
    async with workspace_transaction(pool, lease.workspace_id) as connection:
        raised = await raise_attempt(connection, lease.run_id, attempt, lease.claimed_attempt, lease.lease_s)
    await failpoint("raise_attempt.after_commit")
    lease.attempt = raised
    return raised


class Journal:
    """The run's one way to the database and to the log."""

    def __init__(self, pool: Pool, lease: Lease, sink: Sink, spec: RunSpec, observer: Observer) -> None:
        self._pool = pool
        self._lease = lease
        self._sink = sink
        self._spec = spec
        self._observer = observer

    def emit(self, event: Event) -> None:
        """Tells what needs no commit: tokens, reasoning, pieces of calls, `discarded`."""
        self._sink.emit(event)

    async def begin_step(self, step: int) -> BegunStep:
        """Reads what the model is to see next, and meters the request before it is made."""
        spec, call_id = self._spec, new_id()

        async def write(connection: Connection) -> BegunStep:
            rows = await select_history(connection, spec.conversation_id, spec.id, spec.turn, RESULT_CHARACTERS)
            history = to_history(rows)
            input_tokens = estimate_tokens(history, spec.instructions)
            await self._note_model_call(connection, call_id, step, input_tokens)
            return BegunStep(history, call_id, input_tokens)

        return await self._commit_model_call(call_id, step, write)

    async def begin_model_call(self, step: int, input_tokens: int) -> UUID:
        """Meters one more request of a step before it is made; `input_tokens` is an estimate."""
        call_id = new_id()

        async def write(connection: Connection) -> UUID:
            await self._note_model_call(connection, call_id, step, input_tokens)
            return call_id

        return await self._commit_model_call(call_id, step, write)

    async def _note_model_call(self, connection: Connection, call_id: UUID, step: int, input_tokens: int) -> None:
        await begin_model_call(
            connection,
            call_id=call_id,
            run_id=self._spec.id,
            attempt=self._lease.attempt,
            lease_s=self._lease.lease_s,
            step=step,
            provider=self._spec.provider,
            model=self._spec.model,
            input_tokens=input_tokens,
        )

    async def _commit_model_call(self, call_id: UUID, step: int, write: Callable[[Connection], Awaitable[T]]) -> T:
        """Cancelled meanwhile, the call costs nothing: it is committed all the same, and its request never made."""
        try:
            result = await self._commit("model_call", write)
        except asyncio.CancelledError:
            await self.end_model_call(CallEnd(model_call_id=call_id, state="cancelled", usage=Usage()))
            raise
        self._observer.model_asked(step)
        return result

    async def end_model_call(self, end: CallEnd) -> None:
        """Meters a request that made no step."""
        self._observer.model_answered(end.error_code or end.state, end.usage, end.first_token_age_s)

        async def write(connection: Connection) -> None:
            await hold_run(connection, self._spec.id, self._lease.attempt, self._lease.lease_s)
            await finish_model_call(connection, end.model_call_id, end.state, end.usage, end.error_code)
            if end.first_token_age_s is not None:
                await update_first_token(connection, self._spec.id, end.first_token_age_s)

        await self._commit("model_call", write)

    async def commit_step(self, step: NewStep) -> list[LedgerCall]:
        """Commits a step with its usage and its calls, then emits them. Returns the calls to run."""
        self._observer.model_answered("completed", step.output.usage, step.first_token_age_s)

        async def write(connection: Connection) -> tuple[Message, list[LedgerCall]]:
            run_id, attempt, lease_s = self._spec.id, self._lease.attempt, self._lease.lease_s
            message = await insert_step(connection, run_id, attempt, lease_s, step)
            if message is None:  # the commit's reply was lost, or the run is not ours
                await hold_run(connection, run_id, attempt, lease_s)
                return await select_step_message(connection, run_id, step.index), await select_open_calls(
                    connection, run_id
                )
            ledger = [_ledger_call(call, place, message, step) for place, call in enumerate(step.calls)]
            if ledger:
                await insert_tool_calls(connection, ledger)
            return message, ledger

        def tell(committed: tuple[Message, list[LedgerCall]]) -> None:
            message, ledger = committed
            for call in ledger:
                self._sink.emit(
                    events.ToolCall(tool_call_id=call.id, name=call.name, arguments=call.arguments, effect=call.effect)
                )
            shown = for_event(message)
            self._sink.emit_committed(events.Step(index=step.index, message=shown, usage=step.output.usage), shown)

        _, ledger = await self._commit("step", write, tell)
        return ledger

    async def start_call(self, call: LedgerCall) -> None:
        """From here on the call's effect may happen. Waits while the lease is in doubt."""

        async def write(connection: Connection) -> None:
            await hold_run(connection, self._spec.id, self._lease.attempt, self._lease.lease_s)
            if await update_call_started(connection, call.id, self._lease.attempt):
                await update_open_tool_calls(connection, self._spec.id, +1)

        await self._commit("call", write)
        await self._lease.sure()

    async def finish_call(self, call: LedgerCall, content: str, outcome: Outcome, *, started: bool) -> None:
        """Commits a call's result as a tool message, then emits it. `started` when this attempt had begun it."""

        async def write(connection: Connection) -> Message:
            await hold_run(connection, self._spec.id, self._lease.attempt, self._lease.lease_s)
            if not await update_call_finished(connection, call.id, outcome):  # the commit's reply was lost
                return await select_tool_message(connection, self._spec.id, call.id)
            if started:
                await update_open_tool_calls(connection, self._spec.id, -1)
            return await _insert_result(connection, call, content, outcome)

        await self._commit("result", write, partial(self._tell_result, call))

    async def perform_call(self, call: LedgerCall, perform: Performance) -> None:
        """Commits a call's effect and its result as one, then emits the result."""

        async def write(connection: Connection) -> Message:
            await hold_run(connection, self._spec.id, self._lease.attempt, self._lease.lease_s)
            if await select_call_is_finished(connection, call.id):  # the commit's reply was lost
                return await select_tool_message(connection, self._spec.id, call.id)
            answer = await perform(connection)
            await update_call_finished(connection, call.id, answer.outcome)
            return await _insert_result(connection, call, answer.content, answer.outcome)

        await self._commit("result", write, partial(self._tell_result, call))

    def _tell_result(self, call: LedgerCall, message: Message) -> None:
        outcome = message.outcome
        assert outcome is not None, "a tool message has one"
        result = events.ToolResult(
            tool_call_id=call.id,
            name=call.name,
            result=message.content,
            is_error=outcome is not Outcome.OK,
            outcome=outcome,
        )
        self._sink.emit_committed(result, for_event(message))

    async def settle(self, outcome: RunOutcome) -> Settled:
        """Ends the run and tells it. Raises LeaseLost when it is not ours to end."""
        sealed: list[EventId] = []

        def seal(closed: Sequence[ClosedCall], terminal: Terminal) -> EventId:
            sealed.append(self._sink.seal_end(closed, terminal))
            return sealed[-1]

        async def write(connection: Connection) -> Settled | None:
            return await settle_within(
                connection, self._spec.id, outcome, by="owner", attempt=self._lease.attempt, seal=seal
            )

        def tell(settled: Settled | None) -> None:
            if settled is None or settled.event_id not in sealed:
                raise LeaseLost
            count_end(outcome)
            self._sink.release_end()

        settled = await self._commit("end", write, tell)
        assert settled is not None, "tell raises otherwise"
        return settled

    async def hand_back(self) -> None:
        """Lets the run go without a crash; another worker may take it at once."""

        async def write(connection: Connection) -> None:
            if not await hand_back(connection, self._spec.id, self._lease.attempt):
                raise LeaseLost

        await self._commit("hand_back", write)

    async def _commit(
        self, what: str, write: Callable[[Connection], Awaitable[T]], tell: Callable[[T], None] | None = None
    ) -> T:
        async def commit() -> T:
            async with self._lease.lock:
                result = await persistently(self._pool, self._lease, write, held=what)
                if tell is not None:
                    tell(result)
                return result

        return await finish_even_if_cancelled(commit())


async def _insert_result(connection: Connection, call: LedgerCall, content: str, outcome: Outcome) -> Message:
    return await insert_tool_message(
        connection,
        step_message_id=call.message_id,
        index=call.index,
        tool_call_id=call.id,
        content=content,
        outcome=outcome,
    )


def _ledger_call(call: PlannedCall, place: int, message: Message, step: NewStep) -> LedgerCall:
    assert message.run_id is not None, "a step's message belongs to its run"
    return LedgerCall(
        id=call.id,
        run_id=message.run_id,
        message_id=message.id,
        step=step.index,
        index=place,
        name=call.name,
        arguments=call.arguments,
        invalid=call.invalid,
        provider_call_id=call.provider_call_id,
        effect=call.effect,
        state="pending",
    )
