"""Requeues: which failed runs an operator started again, once each, and who it was."""

from uuid import UUID

from common.model.operations import Requeue
from common.store.database import Connection


async def insert_requeue(connection: Connection, run_id: UUID, new_run_id: UUID, requeued_by: str) -> Requeue:
    """The requeue as recorded; the caller holds the lock of the run's conversation."""
    row = await connection.fetchrow(
        """
        insert into requeues (workspace_id, run_id, new_run_id, requeued_by) values (current_workspace(), $1, $2, $3)
        returning run_id, new_run_id, requeued_by, requeued_at
        """,
        run_id,
        new_run_id,
        requeued_by,
    )
    return Requeue(**row)


async def select_requeue(connection: Connection, run_id: UUID) -> Requeue | None:
    """How the run was started again, if it was."""
    row = await connection.fetchrow(
        "select run_id, new_run_id, requeued_by, requeued_at from requeues where run_id = $1", run_id
    )
    return None if row is None else Requeue(**row)
