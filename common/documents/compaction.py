"""Compaction: a snapshot takes the place of the updates before it, and nothing that a document says is lost."""

import asyncio
from uuid import UUID

from common.documents.kinds import KINDS
from common.documents.replica import merged
from common.store.database import Pool, workspace_transaction
from common.store.document_log import select_stored, upsert_snapshot


async def compact(pool: Pool, workspace_id: UUID, document_id: UUID) -> bool:
    """Whether there was something to do. Who edits meanwhile waits for nothing: the work is done between two short
    transactions, on a prefix of the log, which nobody changes. Raises one of DATABASE_DOWN.
    """
    async with workspace_transaction(pool, workspace_id) as connection:
        stored = await select_stored(connection, document_id)
    if stored is None or not stored.has_long_tail:
        return False
    snapshot = await asyncio.to_thread(merged, KINDS[stored.kind], stored.parts)
    async with workspace_transaction(pool, workspace_id) as connection:
        return await upsert_snapshot(connection, document_id, stored.head_seq, snapshot)
