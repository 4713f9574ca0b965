"""The one way a run ends, for its owner, for the API and for the sweep.

In one transaction: lock the conversation, check the run, give every open tool call a result (providers refuse a
history with an open call), store the terminal event and its id, promote the next run. The log is told afterwards:
the database decides, and whoever finds the log silent reads the end from there.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from common.ids import EventId
from common.model.events import Cancelled, Done, Error, Terminal, ToolResult, encode_event
from common.model.messages import EventMessage, RunError, Usage, for_event
from common.model.run_state import CancelReason, Effect, FinishReason, Outcome, RunErrorCode, RunState
from common.model.steps import LedgerCall
from common.store.database import Connection, Pool, workspace_transaction
from common.store.model_calls import close_crashed_calls, sum_usage
from common.store.run_events import select_started
from common.store.run_messages import insert_tool_message, update_last_message
from common.store.runs import RunEnd, promote_waiting, update_ended
from common.store.tool_calls import select_open_calls, update_call_finished

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


class CancelledBy(NamedTuple):
    """Somebody asked for the end; the reason noted with the request wins over `reason`."""

    reason: CancelReason = CancelReason.USER
    partial_text: str | None = None


RunOutcome = Completed | Failed | CancelledBy


class Settled(NamedTuple):
    """A run that has ended, by this call or before it.

    `started` is there when the end opens an attempt of its own (anyone but the owner ended it): the two events are
    then `<attempt>-1` and `<attempt>-2`. `promoted` is the run to ring for.
    """

    run_id: UUID
    event_id: EventId
    terminal: bytes
    started: bytes | None
    promoted: UUID | None


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

    The owner names its attempt and seals; the sweep names the attempt whose lease ran out; the API may end what
    nobody runs (waiting, queued, paused).
    """
    async with workspace_transaction(pool, workspace_id) as connection:
        await lock_conversation_of(connection, run_id)
        return await settle_within(connection, run_id, outcome, by=by, attempt=attempt, seal=seal)


async def lock_conversation_of(connection: Connection, run_id: UUID) -> None:
    """The lock that every end holds, taken before the run's own: conversation, then run, everywhere."""
    await connection.execute(
        """
        select from conversations c where c.id = (select conversation_id from runs where id = $1)
        for no key update
        """,
        run_id,
    )


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
    """`settle` inside a transaction that holds the conversation's lock already."""
    run = await connection.fetchrow(
        """
        select conversation_id, state, attempt, step_count, cancel_reason, terminal_attempt, terminal_n,
               terminal_event, cancel_requested_at is not null as cancel_requested,
               lease_until < clock_timestamp() as expired
        from runs where id = $1 for no key update
        """,
        run_id,
    )
    if run is None:
        return None
    if run["terminal_event"] is not None:
        end_id = EventId(run["terminal_attempt"], run["terminal_n"])
        started = await select_started(connection, run_id) if end_id.n == 2 else None
        return Settled(run_id, end_id, run["terminal_event"].encode(), started, None)
    state = RunState(run["state"])
    if not _may_end(by, state, attempt == run["attempt"], bool(run["expired"]), run["cancel_requested"]):
        return None

    closed = [await _close(connection, call) for call in await select_open_calls(connection, run_id)]
    if by != "owner":
        await close_crashed_calls(connection, run_id)
    usage = await sum_usage(connection, run_id)
    reason = run["cancel_reason"] and CancelReason(run["cancel_reason"])
    terminal = await _terminal(connection, run_id, outcome, usage, run["step_count"], reason)
    started = None
    if seal is not None:
        event_id = seal(closed, terminal)
    else:
        event_id = EventId(run["attempt"] + 1, 2)
        started = await select_started(connection, run_id, event_id.attempt)
    event = encode_event(terminal)
    await update_ended(connection, run_id, _row_end(outcome), usage, event_id, event)
    await update_last_message(connection, run["conversation_id"])
    promoted = await promote_waiting(connection, run["conversation_id"]) if promote else None
    return Settled(run_id, event_id, event, started, promoted)


def _may_end(by: Party, state: RunState, same_attempt: bool, expired: bool, cancel_requested: bool) -> bool:
    idle = state in (RunState.WAITING, RunState.QUEUED, RunState.PAUSED)
    if by == "owner":
        return state is RunState.RUNNING and same_attempt
    if by == "api":
        return idle
    return (state is RunState.RUNNING and same_attempt and expired) or (idle and cancel_requested)


async def _close(connection: Connection, call: LedgerCall) -> ClosedCall:
    """Gives an open call its result: `unknown` when its effect may have happened, else `cancelled`."""
    uncertain = call.state == "started" and call.effect in (Effect.IDEMPOTENT, Effect.AT_MOST_ONCE)
    outcome = Outcome.UNKNOWN if uncertain else Outcome.CANCELLED
    content = UNKNOWN_OUTCOME if uncertain else "The call was not run: the run was ended before it."
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


async def _terminal(
    connection: Connection,
    run_id: UUID,
    outcome: RunOutcome,
    usage: Usage,
    step_count: int,
    reason: CancelReason | None,
) -> Terminal:
    match outcome:
        case Completed(finish_reason):
            message_id = await connection.fetchval(
                "select id from messages where run_id = $1 and role = 'assistant' order by position desc limit 1",
                run_id,
            )
            return Done(message_id=message_id, usage=usage, step_count=step_count, finish_reason=finish_reason)
        case Failed():
            return Error(error=_error(outcome))
        case CancelledBy():
            return Cancelled(reason=reason or outcome.reason)


def _row_end(outcome: RunOutcome) -> RunEnd:
    match outcome:
        case Completed(finish_reason):
            return RunEnd(state=RunState.COMPLETED, finish_reason=finish_reason)
        case Failed():
            return RunEnd(state=RunState.FAILED, error=_error(outcome))
        case CancelledBy():
            return RunEnd(state=RunState.CANCELLED, partial_text=outcome.partial_text)


def _error(outcome: Failed) -> RunError:
    return RunError(code=outcome.code, message=outcome.message, retryable=outcome.retryable)
