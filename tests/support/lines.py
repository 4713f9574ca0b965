"""Runs that wait for workers, many at once, and their ends: below API and worker, as the database's owner."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from common.model.run_state import Priority


class Lines:
    """What waits in all workspaces of a database."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection

    async def queue(
        self,
        workspaces: Iterable[UUID],
        each: int = 1,
        priority: Priority = Priority.INTERACTIVE,
        due_s: float = 0,
    ) -> dict[UUID, UUID]:
        """Queues `each` runs in each of the workspaces, in their order, due for `due_s` seconds: run to workspace."""
        rows = await self.connection.fetch(
            """
            with wanted as (
                select w.id as workspace_id, gen_random_uuid() as conversation_id, n, w.nth
                from unnest($1::uuid[]) with ordinality as w (id, nth), generate_series(1, $2) as n
            ), conversations as (
                insert into conversations (workspace_id, id, created_by)
                select workspace_id, conversation_id, 'a-user' from wanted
            )
            insert into runs (workspace_id, id, conversation_id, trigger_message_id, turn, state, provider, model,
                              max_steps, created_by, priority, available_at)
            select workspace_id, gen_random_uuid(), conversation_id, gen_random_uuid(), 1, 'queued', 'echo', 'echo',
                   20, 'a-user', $3,
                   clock_timestamp() - $4::float8 * interval '1 second' + (nth * $2 + n) * interval '1 microsecond'
            from wanted
            returning id, workspace_id
            """,
            list(workspaces),
            each,
            priority.number,
            due_s,
        )
        return {row["id"]: row["workspace_id"] for row in rows}

    async def end(self, runs: Iterable[UUID]) -> None:
        """Ends running runs; their workers have places again."""
        await self.connection.execute(
            """
            update runs set state = 'completed', lease_owner = null, lease_until = null,
                            finished_at = clock_timestamp(), terminal_event = '{}', terminal_attempt = attempt,
                            terminal_n = 1
            where id = any ($1)
            """,
            list(runs),
        )


@asynccontextmanager
async def open_lines(database_url: str) -> AsyncIterator[Lines]:
    """`database_url` is the owner's."""
    connection = await asyncpg.connect(database_url)
    try:
        yield Lines(connection)
    finally:
        await connection.close()
