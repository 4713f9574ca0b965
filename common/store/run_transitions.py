"""Transitions of a run: what its owner, the API and the sweep change, each in one statement that checks the state."""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from common.errors import LeaseLost
from common.ids import EventId
from common.model.messages import AgentSettings, RunError, Usage
from common.model.run_state import CancelReason, FinishReason, Priority, RunState
from common.store.database import Connection


class RunSpec(msgspec.Struct, kw_only=True, frozen=True):
    """What a worker needs to run: the snapshot and where the last attempt left it.

    `run_seconds` were used before; on its `last_chance`, one more crash inside a tool ends it. It was due for
    `pickup_s` seconds when this attempt claimed it. `traceparent` names the trace that it belongs to, if any.
    """

    id: UUID
    workspace_id: UUID
    conversation_id: UUID
    trigger_message_id: UUID
    turn: int
    agent_id: UUID | None
    provider: str
    model: str
    instructions: str
    tools: list[str]
    settings: AgentSettings
    priority: Priority
    max_steps: int
    step_count: int
    step_finish_reason: FinishReason | None
    run_seconds: float
    last_chance: bool
    cancel_requested: bool
    created_by: str
    pickup_s: float = 0.0
    traceparent: str | None = None


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


class DueRun(NamedTuple):
    """A run that waits for a worker from now on: the one to ring for."""

    run_id: UUID
    priority: Priority


async def select_run_spec(connection: Connection, run_id: UUID, attempt: int) -> RunSpec:
    """What the owner of `attempt` runs, locked. Raises LeaseLost when the run is no longer in that attempt."""
    row = await connection.fetchrow(
        """
        select id, workspace_id, conversation_id, trigger_message_id, turn, agent_id, provider, model, instructions,
               tools, settings, priority, max_steps, step_count, step_finish_reason, run_seconds,
               crashes_since_progress >= 2 as last_chance, cancel_requested_at is not null as cancel_requested,
               created_by, greatest(extract(epoch from claimed_at - available_at), 0)::float8 as pickup_s, traceparent
        from runs where id = $1 and attempt = $2 and state = 'running'
        for no key update
        """,
        run_id,
        attempt,
    )
    if row is None:
        raise LeaseLost
    reason = row["step_finish_reason"]
    return RunSpec(
        **{
            **row,
            "settings": msgspec.convert(row["settings"], AgentSettings),
            "priority": Priority.of(row["priority"]),
            "step_finish_reason": reason and FinishReason(reason),
        }
    )


async def request_cancel(connection: Connection, run_id: UUID, reason: CancelReason) -> RunState | None:
    """Notes the wish to cancel, once; the first reason stays. The state as it is, None for an unknown run."""
    state = await connection.fetchval(
        """
        update runs
        set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
            cancel_reason = coalesce(cancel_reason, $2)
        where id = $1 and finished_at is null
        returning state
        """,
        run_id,
        reason,
    )
    if state is None:
        state = await connection.fetchval("select state from runs where id = $1", run_id)
    return None if state is None else RunState(state)


async def supersede_runs(connection: Connection, conversation_id: UUID, from_turn: int) -> None:
    """Marks the runs of `from_turn` and later, so that what they still write does not count.

    Call it before superseding the messages: a step that commits in between is then seen by one of the two.
    """
    await connection.execute(
        """
        update runs set superseded_at = clock_timestamp()
        where conversation_id = $1 and turn >= $2 and superseded_at is null
        """,
        conversation_id,
        from_turn,
    )


async def hold_run(connection: Connection, run_id: UUID, attempt: int, lease_s: float) -> bool:
    """Fences a transaction of the owner: locks the run, renews its lease. Whether its output is superseded.

    Raises LeaseLost when the run has another attempt or has ended.
    """
    row = await connection.fetchrow(
        """
        update runs set lease_until = clock_timestamp() + $3
        where id = $1 and attempt = $2 and state = 'running'
        returning superseded_at is not null as superseded
        """,
        run_id,
        attempt,
        timedelta(seconds=lease_s),
    )
    if row is None:
        raise LeaseLost
    return bool(row["superseded"])


async def raise_attempt(
    connection: Connection, run_id: UUID, attempt: int, claimed_attempt: int, lease_s: float
) -> int:
    """Begins a new attempt under the same claim: no crash, nothing discarded. Raises LeaseLost.

    May be repeated after a lost reply: the claim is still the same then, and its attempt raised already.
    """
    raised = await connection.fetchval(
        """
        update runs set attempt = $2::bigint + 1, lease_until = clock_timestamp() + $4
        where id = $1 and attempt in ($2::bigint, $2::bigint + 1) and claimed_attempt = $3 and state = 'running'
        returning attempt
        """,
        run_id,
        attempt,
        claimed_attempt,
        timedelta(seconds=lease_s),
    )
    if raised is None:
        raise LeaseLost
    return int(raised)


async def update_progress(
    connection: Connection,
    run_id: UUID,
    *,
    step_count: int,
    finish_reason: FinishReason | None,
    first_token_age_s: float | None,
) -> None:
    """A step is committed: counts it and forgives the crashes before it.

    `finish_reason` is there when the step called no tool. `first_token_age_s` is how long ago, in seconds, its first
    token came: the run keeps the time of the first one of all.
    """
    await connection.execute(
        """
        update runs
        set step_count = $2, step_finish_reason = $3,
            crashes_since_progress = 0, crashes_at_progress = crashes_total,
            first_token_at = coalesce(first_token_at, clock_timestamp() - $4::float8 * interval '1 second')
        where id = $1
        """,
        run_id,
        step_count,
        finish_reason,
        first_token_age_s,
    )


async def update_first_token(connection: Connection, run_id: UUID, age_s: float) -> None:
    """The run's first token came `age_s` seconds ago, if none came before."""
    await connection.execute(
        """
        update runs
        set first_token_at = coalesce(first_token_at, clock_timestamp() - $2::float8 * interval '1 second')
        where id = $1
        """,
        run_id,
        age_s,
    )


async def update_open_tool_calls(connection: Connection, run_id: UUID, change: int) -> None:
    """Tool calls in flight: a crash while there are any makes the run a suspect."""
    await connection.execute(
        "update runs set open_tool_calls = greatest(0, open_tool_calls + $2) where id = $1", run_id, change
    )


async def hand_back(connection: Connection, run_id: UUID, attempt: int) -> bool:
    """The owner lets go without a crash: the run is due again at once. False when it was not ours any more.

    May be repeated after a lost reply: a queued run in our attempt is the one that we handed back.
    """
    await connection.execute(
        """
        update runs
        set state = 'queued', lease_owner = null, lease_until = null, open_tool_calls = 0,
            available_at = clock_timestamp(),
            run_seconds = run_seconds + extract(epoch from clock_timestamp() - claimed_at)
        where id = $1 and attempt = $2 and state = 'running'
        """,
        run_id,
        attempt,
    )
    return bool(
        await connection.fetchval(
            "select true from runs where id = $1 and attempt = $2 and state = 'queued'", run_id, attempt
        )
    )


async def lock_run_to_end(connection: Connection, run_id: UUID) -> RunToEnd | None:
    """The run, held until the transaction is over; its conversation is locked already."""
    row = await connection.fetchrow(
        """
        select conversation_id, state, attempt, step_count, cancel_reason, terminal_attempt, terminal_n,
               terminal_event, cancel_requested_at is not null as cancel_requested,
               lease_until < clock_timestamp() as expired
        from runs where id = $1 for no key update
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


async def update_ended(
    connection: Connection, run_id: UUID, end: RunEnd, usage: Usage, event_id: EventId, event: bytes
) -> None:
    """Makes the run terminal; from here on a trigger keeps the row as it is."""
    await connection.execute(
        """
        update runs
        set state = $2, finish_reason = $3, error = $4, partial_text = $5, usage = $6, attempt = $7,
            terminal_attempt = $7, terminal_n = $8, terminal_event = $9, finished_at = clock_timestamp(),
            lease_owner = null, lease_until = null, open_tool_calls = 0,
            run_seconds = run_seconds
                + case when state = 'running' then extract(epoch from clock_timestamp() - claimed_at) else 0 end
        where id = $1
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
