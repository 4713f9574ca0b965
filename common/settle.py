"""The one way a run ends, for its owner, for the API and for the sweep.

In one transaction: lock the conversation, check the run, give every open tool call a result (providers refuse a
history with an open call), store the terminal event and its id, promote the next run. The log is told afterwards:
the database decides, and whoever finds the log silent reads the end from there.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from common.eventlog.log import EventLog
from common.failpoints import failpoint
from common.ids import EventId
from common.model.clean import clean
from common.model.events import Cancelled, Done, Error, Terminal, ToolResult, encode_event
from common.model.messages import EventMessage, RunError, for_event
from common.model.run_state import CancelReason, Effect, FinishReason, Outcome, RunErrorCode, RunState
from common.model.steps import LedgerCall
from common.observability.metrics import RUNS_ENDED
from common.store.database import Connection, Pool, workspace_transaction
from common.store.run_ends import (
    Outturn,
    RunEnd,
    RunToEnd,
    close_model_calls,
    lock_run_to_end,
    promote_waiting,
    update_ended,
)
from common.store.run_events import select_started
from common.store.run_messages import insert_tool_message
from common.store.run_transitions import DueRun
from common.store.tool_calls import select_open_calls, update_call_finished

_SWEEP_LOCK_S = 1.0

Party = Literal["owner", "api", "sweep"]
ClosedCall = tuple[ToolResult, EventMessage]
Seal = Callable[[Sequence[ClosedCall], Terminal], EventId]
"""The owner's numbering of its last events; called inside the transaction, and again if that must be repeated."""


class Completed(NamedTuple):
    """The loop came to its end."""

    finish_reason: FinishReason


class Failed(NamedTuple):
    """The run cannot go on."""

    code: RunErrorCode
    message: str
    retryable: bool
    partial_text: str | None = None


class CancelledBy(NamedTuple):
    """Somebody asked for the end; the reason noted with the request wins over `reason`."""

    reason: CancelReason = CancelReason.USER
    partial_text: str | None = None


RunOutcome = Completed | Failed | CancelledBy


class Settled(NamedTuple):
    """A run that has ended, by this call or before it.

    `started` is there when the end opens an attempt of its own (anyone but the owner ended it): the two events are
    then `<attempt>-1` and `<attempt>-2`. `promoted` is the run to ring for. `repeated`: it had ended before this call.
    """

    run_id: UUID
    event_id: EventId
    terminal: bytes
    started: bytes | None
    promoted: DueRun | None
    repeated: bool = False


async def settle(
    pool: Pool,
    workspace_id: UUID,
    run_id: UUID,
    outcome: RunOutcome,
    *,
    by: Party,
    attempt: int | None = None,
    seal: Seal | None = None,
) -> Settled | None:
    """Ends the run, or says how it ended before. None when `by` may not end it as it stands.

    The owner names its attempt and seals; the sweep names the attempt whose lease ran out, and waits for no lock; the
    API may end what nobody runs (waiting, queued, paused).
    """
    lock_timeout_s = _SWEEP_LOCK_S if by == "sweep" else None
    async with workspace_transaction(pool, workspace_id, lock_timeout_s=lock_timeout_s) as connection:
        settled = await settle_within(connection, run_id, outcome, by=by, attempt=attempt, seal=seal)
    if settled is not None and not settled.repeated:
        count_end(outcome)
    return settled


async def settle_within(
    connection: Connection,
    run_id: UUID,
    outcome: RunOutcome,
    *,
    by: Party,
    attempt: int | None = None,
    seal: Seal | None = None,
    promote: bool = True,
) -> Settled | None:
    """`settle` inside a transaction; who commits it calls `count_end`."""
    run = await lock_run_to_end(connection, run_id)
    if run is None:
        return None
    if run.terminal is not None:
        end_id, event = run.terminal
        started = await select_started(connection, run_id) if end_id.n == 2 else None
        return Settled(run_id, end_id, event, started, None, repeated=True)
    if not _may_end(by, run, attempt):
        return None

    outturn = await close_model_calls(connection, run_id)
    open_calls = await select_open_calls(connection, run_id) if outturn.has_open_calls else []
    closed = [await _close(connection, call) for call in open_calls]
    terminal = _terminal(outcome, outturn, run)
    started = None
    if seal is not None:
        event_id = seal(closed, terminal)
    else:
        event_id = EventId(run.attempt + 1, 2)
        started = await select_started(connection, run_id, event_id.attempt)
    event = encode_event(terminal)
    others_wait = await update_ended(connection, run_id, _row_end(outcome), outturn.usage, event_id, event)
    promoted = await promote_waiting(connection, run.conversation_id) if promote and others_wait else None
    return Settled(run_id, event_id, event, started, promoted)


async def tell_end(log: EventLog, settled: Settled) -> None:
    """Tells the log of an end that was not the owner's. Raises one of REDIS_DOWN; then relays tell it by themselves."""
    if settled.started is not None:
        await failpoint("tell_end.before")
        await log.end(settled.run_id, settled.event_id.attempt, settled.started, settled.terminal)
        await failpoint("tell_end.after")


def count_end(outcome: RunOutcome) -> None:
    """Counts a run that has ended this way. Call it once the end is committed."""
    code = outcome.code if isinstance(outcome, Failed) else ""
    RUNS_ENDED.labels(_row_end(outcome).state, code).inc()


def _may_end(by: Party, run: RunToEnd, attempt: int | None) -> bool:
    idle = run.state in (RunState.WAITING, RunState.QUEUED, RunState.PAUSED)
    ours = run.state is RunState.RUNNING and run.attempt == attempt
    if by == "owner":
        return ours
    if by == "api":
        return idle
    return (ours and bool(run.expired)) or (idle and run.cancel_requested)


async def _close(connection: Connection, call: LedgerCall) -> ClosedCall:
    """Gives an open call its result: `unknown` when its effect may have happened, else `cancelled`."""
    uncertain = call.state == "started" and call.effect in (Effect.IDEMPOTENT, Effect.AT_MOST_ONCE)
    outcome = Outcome.UNKNOWN if uncertain else Outcome.CANCELLED
    content = UNKNOWN_OUTCOME if uncertain else "The call has no result: the run was ended first."
    await update_call_finished(connection, call.id, outcome)
    message = await insert_tool_message(
        connection,
        step_message_id=call.message_id,
        index=call.index,
        tool_call_id=call.id,
        content=content,
        outcome=outcome,
    )
    result = ToolResult(tool_call_id=call.id, name=call.name, result=content, is_error=True, outcome=outcome)
    return result, for_event(message)


UNKNOWN_OUTCOME = (
    "The outcome of this call is unknown: it was started, then interrupted. "
    "It may or may not have taken effect. It was not run again."
)


def _terminal(outcome: RunOutcome, outturn: Outturn, run: RunToEnd) -> Terminal:
    match outcome:
        case Completed(finish_reason):
            return Done(
                message_id=outturn.last_answer,
                usage=outturn.usage,
                step_count=run.step_count,
                finish_reason=finish_reason,
            )
        case Failed():
            return Error(error=_error(outcome))
        case CancelledBy():
            return Cancelled(reason=run.cancel_reason or outcome.reason)


def _row_end(outcome: RunOutcome) -> RunEnd:
    match outcome:
        case Completed(finish_reason):
            return RunEnd(state=RunState.COMPLETED, finish_reason=finish_reason)
        case Failed():
            return RunEnd(state=RunState.FAILED, error=_error(outcome), partial_text=_partial_text(outcome))
        case CancelledBy():
            return RunEnd(state=RunState.CANCELLED, partial_text=_partial_text(outcome))


def _partial_text(outcome: Failed | CancelledBy) -> str | None:
    return None if outcome.partial_text is None else clean(outcome.partial_text)


def _error(outcome: Failed) -> RunError:
    # What a provider says may hold what Postgres cannot store.
    return RunError(code=outcome.code, message=clean(outcome.message), retryable=outcome.retryable)
