"""How a run ends, in its rows: locked, counted up, closed. common/settle.py is the one who decides it."""

from typing import NamedTuple
from uuid import UUID

import msgspec

from common.ids import EventId
from common.model.messages import RunError, Usage
from common.model.run_state import CancelReason, FinishReason, Priority, RunState
from common.store.database import Connection
from common.store.model_calls import CLOSE_CRASHED
from common.store.run_transitions import DueRun


class RunEnd(msgspec.Struct, kw_only=True, frozen=True):
    """How a run ends, as its row remembers it."""

    state: RunState
    finish_reason: FinishReason | None = None
    error: RunError | None = None
    partial_text: str | None = None


class RunToEnd(msgspec.Struct, kw_only=True, frozen=True):
    """A run as `settle` finds it, locked. `terminal` is its end, if it has one; `expired` is None without a lease."""

    conversation_id: UUID
    state: RunState
    attempt: int
    step_count: int
    cancel_requested: bool
    cancel_reason: CancelReason | None
    expired: bool | None
    terminal: tuple[EventId, bytes] | None


class Outturn(NamedTuple):
    """What a run that ends has come to: all its model calls together, its last assistant message, if it has one, and
    whether a tool call has no result yet.
    """

    usage: Usage
    last_answer: UUID | None
    has_open_calls: bool


async def lock_run_to_end(connection: Connection, run_id: UUID) -> RunToEnd | None:
    """The run, held until the transaction is over, and before it its conversation, deleted or not."""
    row = await connection.fetchrow(
        """
        with conversation as (
            select from conversations c where c.id = (select conversation_id from runs where id = $1)
            for no key update)
        select r.conversation_id, r.state, r.attempt, r.step_count, r.cancel_reason, r.terminal_attempt, r.terminal_n,
               r.terminal_event, r.cancel_requested_at is not null as cancel_requested,
               r.lease_until < clock_timestamp() as expired
        from conversation, runs r where r.id = $1 for no key update of r
        """,
        run_id,
    )
    if row is None:
        return None
    terminal = None
    if row["terminal_event"] is not None:
        terminal = (EventId(row["terminal_attempt"], row["terminal_n"]), row["terminal_event"].encode())
    return RunToEnd(
        conversation_id=row["conversation_id"],
        state=RunState(row["state"]),
        attempt=row["attempt"],
        step_count=row["step_count"],
        cancel_requested=row["cancel_requested"],
        cancel_reason=row["cancel_reason"] and CancelReason(row["cancel_reason"]),
        expired=row["expired"],
        terminal=terminal,
    )


async def close_model_calls(connection: Connection, run_id: UUID) -> Outturn:
    """Closes the model calls that a crash has cut off, with the estimate that they began with, and counts all up."""
    row = await connection.fetchrow(
        f"""
        with crashed as ({CLOSE_CRASHED})
        select coalesce(sum(input_tokens), 0)::bigint as input_tokens,
               coalesce(sum(output_tokens), 0)::bigint as output_tokens,
               coalesce(sum(cached_input_tokens), 0)::bigint as cached_input_tokens,
               coalesce(sum(cache_write_tokens), 0)::bigint as cache_write_tokens,
               coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens,
               coalesce(bool_or(estimated), false) as estimated,
               (select id from messages where run_id = $1 and role = 'assistant'
                order by position desc limit 1) as last_answer,
               exists (select from tool_calls where run_id = $1 and state <> 'finished') as has_open_calls
        from model_calls where run_id = $1
        """,
        run_id,
    )
    figures = dict(row)
    last_answer, has_open_calls = figures.pop("last_answer"), figures.pop("has_open_calls")
    return Outturn(Usage(**figures), last_answer, has_open_calls)


async def update_ended(
    connection: Connection, run_id: UUID, end: RunEnd, usage: Usage, event_id: EventId, event: bytes
) -> bool:
    """Makes the run terminal, and a trigger keeps it so. Whether more runs of its conversation wait."""
    return bool(
        await connection.fetchval(
            """
            with ended as (
                update runs
                set state = $2, finish_reason = $3, error = $4, partial_text = $5, usage = $6, attempt = $7,
                    terminal_attempt = $7, terminal_n = $8, terminal_event = $9, finished_at = clock_timestamp(),
                    lease_owner = null, lease_until = null, open_tool_calls = 0,
                    run_seconds = run_seconds
                        + case when state = 'running' then extract(epoch from clock_timestamp() - claimed_at) else 0 end
                where id = $1
                returning workspace_id, conversation_id),
            moved as (
                update conversations c set last_message_at = clock_timestamp(), updated_at = clock_timestamp()
                from ended e where c.workspace_id = e.workspace_id and c.id = e.conversation_id)
            select exists (select from runs w where w.workspace_id = e.workspace_id
                           and w.conversation_id = e.conversation_id and w.state = 'waiting')
            from ended e
            """,
            run_id,
            end.state,
            end.finish_reason,
            end.error,
            end.partial_text,
            usage,
            event_id.attempt,
            event_id.n,
            event.decode(),
        )
    )


async def promote_waiting(connection: Connection, conversation_id: UUID) -> DueRun | None:
    """Queues the conversation's next waiting run if none is active; the caller holds the conversation's lock."""
    row = await connection.fetchrow(
        """
        update runs set state = 'queued', available_at = clock_timestamp()
        where id = (
            select id from runs w
            where w.conversation_id = $1 and w.state = 'waiting' and w.cancel_requested_at is null
              and not exists (select from runs a where a.workspace_id = w.workspace_id
                              and a.conversation_id = $1 and a.state in ('queued', 'running', 'paused'))
            order by w.turn, w.created_at limit 1)
        returning id, priority
        """,
        conversation_id,
    )
    return None if row is None else DueRun(row["id"], Priority.of(row["priority"]))
