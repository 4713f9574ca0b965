"""Transitions of a run: what its owner, the API and the sweep change, each in one statement that checks the state."""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from common.errors import LeaseLost
from common.model.messages import AgentSettings
from common.model.run_state import CancelReason, FinishReason, Priority, RunState
from common.store.database import Connection

HOLD = """
    update runs set lease_until = clock_timestamp() + $3
    where id = $1 and attempt = $2 and state = 'running'
    returning workspace_id, id, attempt
"""
"""The fence of everything that an owner writes: the run, its attempt, how long its lease is to last."""


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


class DueRun(NamedTuple):
    """A run that waits for a worker from now on: the one to ring for."""

    run_id: UUID
    priority: Priority


async def select_run_spec(connection: Connection, run_id: UUID, attempt: int, *, lock: bool) -> RunSpec:
    """What the owner of `attempt` runs. Raises LeaseLost when the run is no longer in that attempt.

    Only who writes on the strength of it needs the `lock`: even alone it is a write, which waits for the disk.
    """
    row = await connection.fetchrow(
        f"""
        select id, workspace_id, conversation_id, trigger_message_id, turn, agent_id, provider, model, instructions,
               tools, settings, priority, max_steps, step_count, step_finish_reason, run_seconds,
               crashes_since_progress >= 2 as last_chance, cancel_requested_at is not null as cancel_requested,
               created_by, greatest(extract(epoch from claimed_at - available_at), 0)::float8 as pickup_s, traceparent
        from runs where id = $1 and attempt = $2 and state = 'running'
        {"for no key update" if lock else ""}
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


async def hold_run(connection: Connection, run_id: UUID, attempt: int, lease_s: float) -> None:
    """Fences a transaction of the owner: locks the run, renews its lease.

    Raises LeaseLost when the run has another attempt or has ended.
    """
    row = await connection.fetchrow(HOLD, run_id, attempt, timedelta(seconds=lease_s))
    if row is None:
        raise LeaseLost


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
