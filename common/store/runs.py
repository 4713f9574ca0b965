"""Runs: the rows that decide, as they are made and read; see run_transitions.py for what becomes of them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from common.model.messages import AgentSettings, Run, RunError, Timings, Usage
from common.model.run_state import FinishReason, Priority, RunState
from common.store.database import Connection, Row

_COLUMNS = """
    id, conversation_id, trigger_message_id, agent_id, provider, model, state, priority, attempt, step_count,
    finish_reason, error, usage, partial_text, created_by, created_at, started_at, first_token_at, finished_at
"""

_OF_LIVING_CONVERSATION = """
    exists (select from conversations c
            where c.workspace_id = r.workspace_id and c.id = r.conversation_id and c.deleted_at is null)
"""


class NewRun(msgspec.Struct, kw_only=True):
    """What a run is made of: a snapshot, so that later edits of the agent do not reach it."""

    id: UUID
    conversation_id: UUID
    trigger_message_id: UUID
    turn: int
    state: RunState
    agent_id: UUID | None
    provider: str
    model: str
    instructions: str
    tools: list[str]
    settings: AgentSettings
    max_steps: int
    created_by: str
    priority: Priority = Priority.INTERACTIVE
    traceparent: str | None = None


async def insert_run(connection: Connection, new: NewRun) -> Run:
    """The run as inserted. Its conversation is locked by the caller, so at most one run becomes active."""
    row = await connection.fetchrow(
        f"""
        insert into runs (workspace_id, id, conversation_id, trigger_message_id, turn, state, agent_id, provider,
                          model, instructions, tools, settings, max_steps, created_by, priority, traceparent)
        values (current_workspace(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        returning {_COLUMNS}
        """,
        new.id,
        new.conversation_id,
        new.trigger_message_id,
        new.turn,
        new.state,
        new.agent_id,
        new.provider,
        new.model,
        new.instructions,
        new.tools,
        new.settings,
        new.max_steps,
        new.created_by,
        new.priority.number,
        new.traceparent,
    )
    return _read_run(row)


async def insert_run_again(
    connection: Connection, run_id: UUID, new_run_id: UUID, traceparent: str | None
) -> Run | None:
    """A queued run of the same turn with the snapshot of `run_id`; the caller holds the lock of its conversation.

    None when housekeeping has removed the snapshot.
    """
    row = await connection.fetchrow(
        f"""
        insert into runs (workspace_id, id, conversation_id, trigger_message_id, turn, state, agent_id, provider,
                          model, instructions, tools, settings, max_steps, created_by, priority, traceparent)
        select workspace_id, $2, conversation_id, trigger_message_id, turn, 'queued', agent_id, provider,
               model, instructions, tools, settings, max_steps, created_by, priority, $3
        from runs where id = $1 and details_removed_at is null
        returning {_COLUMNS}
        """,
        run_id,
        new_run_id,
        traceparent,
    )
    return None if row is None else _read_run(row)


async def select_turn(connection: Connection, run_id: UUID) -> int:
    """The turn of a run that is there."""
    turn: int = await connection.fetchval("select turn from runs where id = $1", run_id)
    return turn


async def select_run(connection: Connection, run_id: UUID) -> Run | None:
    """The run, if it is of this workspace and its conversation is not deleted."""
    return await _select_one(connection, "r.id = $1", run_id)


async def select_run_of_trigger(connection: Connection, conversation_id: UUID, message_id: UUID) -> Run | None:
    """The newest run that `message_id` started in this conversation."""
    return await _select_one(
        connection, "r.conversation_id = $1 and r.trigger_message_id = $2", conversation_id, message_id
    )


async def select_latest_run(connection: Connection, conversation_id: UUID) -> Run | None:
    """The active run of the conversation, else its newest."""
    return await _select_one(connection, "r.conversation_id = $1", conversation_id)


async def select_runs(
    connection: Connection,
    *,
    conversation_id: UUID | None,
    state: RunState | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Run]:
    """Newest first, of conversations that are not deleted; `before` is the (createdAt, id) of the last one seen."""
    arguments: list[Any] = [limit]
    conditions = []
    # Only what is asked for stands in the query, so that its plan can use the index made for it.
    wanted: list[tuple[str, tuple[Any, ...] | None]] = [
        ("conversation_id = ${}", (conversation_id,) if conversation_id else None),
        ("state = ${}", (state,) if state else None),
        ("(created_at, id) < (${}, ${})", before),
    ]
    for condition, values in wanted:
        if values is not None:
            first = len(arguments) + 1
            arguments.extend(values)
            conditions.append(condition.format(*range(first, len(arguments) + 1)))
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from runs r
        where {" and ".join([*conditions, _OF_LIVING_CONVERSATION])}
        order by created_at desc, id desc limit $1
        """,
        *arguments,
    )
    return [_read_run(row) for row in rows]


async def select_unfinished_runs(connection: Connection, conversation_id: UUID) -> list[Run]:
    """What makes the conversation busy: its active run, if any, then the waiting ones in order."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from runs
        where conversation_id = $1 and finished_at is null
        order by state = 'waiting', turn, created_at
        """,
        conversation_id,
    )
    return [_read_run(row) for row in rows]


async def select_partial_texts(connection: Connection, conversation_id: UUID) -> list[tuple[int, UUID, str]]:
    """What unfinished steps of ended runs had said, as (turn, run, text) in the order of turns; no superseded ones."""
    rows = await connection.fetch(
        """
        select turn, id, partial_text from runs
        where conversation_id = $1 and superseded_at is null and partial_text <> ''
        order by turn, created_at
        """,
        conversation_id,
    )
    return [tuple(row) for row in rows]


async def select_is_newest(connection: Connection, run_id: UUID) -> bool:
    """Whether nothing has come in the run's conversation since: no message, and no other answer to its own."""
    return bool(
        await connection.fetchval(
            """
            select r.superseded_at is null and r.turn = c.last_turn
            from runs r join conversations c on c.workspace_id = r.workspace_id and c.id = r.conversation_id
            where r.id = $1
            """,
            run_id,
        )
    )


async def count_not_begun(connection: Connection, user: str, most: int, user_most: int) -> tuple[int, int]:
    """How many runs of the workspace, and of one user, are waiting or queued; nobody counts beyond what is asked."""
    row = await connection.fetchrow(
        """
        select (select count(*) from (select from runs where state in ('waiting', 'queued') limit $2) r),
               (select count(*) from (select from runs where state in ('waiting', 'queued') and created_by = $1
                                      limit $3) r)
        """,
        user,
        most,
        user_most,
    )
    return row[0], row[1]


async def lock_line(connection: Connection) -> None:
    """Until the transaction ends, who else asks for this waits: what was counted stays true."""
    await connection.execute(
        "select pg_advisory_xact_lock(hashtextextended('runs not begun ' || current_workspace(), 0))"
    )


async def _select_one(connection: Connection, condition: str, *arguments: Any) -> Run | None:
    row = await connection.fetchrow(
        f"""
        select {_COLUMNS} from runs r
        where {condition} and {_OF_LIVING_CONVERSATION}
        order by state in ('queued', 'running', 'paused') desc, created_at desc, id desc limit 1
        """,
        *arguments,
    )
    return None if row is None else _read_run(row)


def _read_run(row: Row) -> Run:
    created = row["created_at"]
    return Run(
        id=row["id"],
        conversation_id=row["conversation_id"],
        trigger_message_id=row["trigger_message_id"],
        agent_id=row["agent_id"],
        provider=row["provider"],
        model=row["model"],
        state=RunState(row["state"]),
        priority=Priority.of(row["priority"]),
        attempt=row["attempt"],
        step_count=row["step_count"],
        finish_reason=row["finish_reason"] and FinishReason(row["finish_reason"]),
        error=row["error"] and msgspec.convert(row["error"], RunError),
        usage=msgspec.convert(row["usage"], Usage),
        partial_text=row["partial_text"],
        timings=Timings(
            queued_ms=_milliseconds(created, row["started_at"]),
            first_token_ms=_milliseconds(created, row["first_token_at"]),
            total_ms=_milliseconds(created, row["finished_at"]),
        ),
        created_by=row["created_by"],
        created_at=created,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _milliseconds(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else round((end - start).total_seconds() * 1000)
