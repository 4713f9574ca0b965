"""What is outdated: found across all workspaces as ids and times, removed within each. Ages are whole days."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from common.store.database import Connection, Pool

KEY_AGE = timedelta(hours=24)
"""How long an idempotency key holds."""


class Outdated(NamedTuple):
    """A row that may go, and since when it has been what it is: what is listed next comes after it."""

    moment: datetime
    workspace_id: UUID
    id: UUID


BEFORE_ALL = Outdated(datetime(1, 1, 1, tzinfo=UTC), UUID(int=0), UUID(int=0))


async def take_round(pool: Pool, every_s: float) -> bool:
    """Whether a round is due and ours: then nobody else gets one within `every_s` seconds."""
    return bool(
        await pool.fetchval(
            """
            update housekeeping set due_at = clock_timestamp() + $1
            where due_at <= clock_timestamp() returning true
            """,
            timedelta(seconds=every_s),
        )
    )


async def find_runs_with_old_details(pool: Pool, days: int, after: Outdated, limit: int) -> list[Outdated]:
    """Runs that ended more than `days` ago and still have their details, oldest first."""
    return await _find(pool, "find_runs_with_old_details", days, after, limit)


async def find_deleted_conversations(pool: Pool, days: int, after: Outdated, limit: int) -> list[Outdated]:
    """Conversations that were deleted more than `days` ago, oldest first."""
    return await _find(pool, "find_deleted_conversations", days, after, limit)


async def find_deleted_documents(pool: Pool, days: int, after: Outdated, limit: int) -> list[Outdated]:
    """Documents that were deleted more than `days` ago, oldest first."""
    return await _find(pool, "find_deleted_documents", days, after, limit)


async def find_workspaces_of_old_keys(pool: Pool, limit: int) -> list[UUID]:
    """Whose are the `limit` oldest idempotency keys that hold no longer."""
    rows = await pool.fetch("select * from find_workspaces_of_old_keys($1, $2)", KEY_AGE, limit)
    return [row["workspace_id"] for row in rows]


async def find_workspaces_of_old_tickets(pool: Pool, limit: int) -> list[UUID]:
    """Whose are the `limit` tickets that ended first."""
    rows = await pool.fetch("select * from find_workspaces_of_old_tickets($1)", limit)
    return [row["workspace_id"] for row in rows]


async def remove_run_details(connection: Connection, run_ids: Sequence[UUID]) -> int:
    """Removes what only a worker needs of runs that have ended; of how many. What somebody holds is left for next time.

    Conversations are locked before runs, as everywhere; then nobody else changes these messages.
    """
    rows = await connection.fetch(
        """
        select r.id from runs r
        join conversations c on c.workspace_id = r.workspace_id and c.id = r.conversation_id
        where r.id = any($1::uuid[]) and r.finished_at is not null and r.details_removed_at is null
        for no key update of c, r skip locked
        """,
        list(run_ids),
    )
    held = [row["id"] for row in rows]
    await connection.execute("delete from tool_calls where run_id = any($1::uuid[])", held)
    await connection.execute(
        "update messages set provider_data = null where run_id = any($1::uuid[]) and provider_data is not null", held
    )
    await connection.execute(
        """
        update runs set instructions = '', tools = '{}', settings = '{}', details_removed_at = clock_timestamp()
        where id = any($1::uuid[])
        """,
        held,
    )
    return len(held)


async def delete_piece_of_conversation(
    connection: Connection, conversation_id: UUID, days: int, limit: int
) -> Literal["more", "gone", "held"]:
    """Removes up to `limit` messages or runs of a conversation that was deleted more than `days` ago; with the last of
    them the conversation itself (`gone`). Nothing while a run of it has not ended, or somebody has it locked (`held`).
    """
    held = await connection.fetchval(
        """
        select true from conversations c
        where c.id = $1 and c.deleted_at < clock_timestamp() - $2::interval and not exists (
            select from runs r
            where r.workspace_id = c.workspace_id and r.conversation_id = c.id and r.finished_at is null)
        for update skip locked
        """,
        conversation_id,
        timedelta(days=days),
    )
    if not held:
        return "held"
    for table in ("messages", "runs"):
        gone = await connection.fetch(
            f"""
            delete from {table} where conversation_id = $1
                and id = any(array(select id from {table} where conversation_id = $1 limit $2))
            returning true
            """,
            conversation_id,
            limit,
        )
        if len(gone) == limit:
            return "more"
    await connection.execute("delete from conversations where id = $1", conversation_id)
    return "gone"


async def delete_document(connection: Connection, document_id: UUID, days: int) -> bool:
    """Removes a document that was deleted more than `days` ago with its log, at once: until then it can be restored."""
    return bool(
        await connection.fetchval(
            """
            delete from documents
            where id = $1 and deleted_at < clock_timestamp() - $2::interval
            returning true
            """,
            document_id,
            timedelta(days=days),
        )
    )


async def delete_old_keys(connection: Connection, limit: int) -> int:
    """Removes idempotency keys that hold no longer, up to `limit` of the workspace; how many."""
    rows = await connection.fetch(
        """
        delete from idempotency_keys
        where ctid = any(array(
            select ctid from idempotency_keys where created_at < clock_timestamp() - $1::interval
            limit $2 for update skip locked))
        returning true
        """,
        KEY_AGE,
        limit,
    )
    return len(rows)


async def delete_old_tickets(connection: Connection, limit: int) -> int:
    """Removes tickets that have ended, up to `limit` of the workspace; how many."""
    rows = await connection.fetch(
        """
        delete from tickets
        where ctid = any(array(
            select ctid from tickets where expires_at < clock_timestamp() limit $1 for update skip locked))
        returning true
        """,
        limit,
    )
    return len(rows)


async def _find(pool: Pool, function: str, days: int, after: Outdated, limit: int) -> list[Outdated]:
    rows = await pool.fetch(
        f"select * from {function}($1, $2, $3, $4)", timedelta(days=days), after.moment, after.id, limit
    )
    return [Outdated(*row) for row in rows]
