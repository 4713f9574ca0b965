"""One document in Postgres, as its room needs it. Everything raises one of DATABASE_DOWN, and Gone."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from common.store.database import TRANSACTION_S, Pool, workspace_transaction
from common.store.document_log import (
    Actor,
    Stored,
    Update,
    append_updates,
    insert_clients,
    select_stored,
    select_updates_after,
    upsert_text,
)

NO_DOCUMENT = "there is no such document"


class Gone(Exception):
    """There is no such document in the workspace, or no longer."""


class Storage:
    """The document `document_id` of `workspace_id`."""

    def __init__(self, pool: Pool, workspace_id: UUID, document_id: UUID) -> None:
        self._pool = pool
        self.workspace_id = workspace_id
        self.document_id = document_id

    async def load(self) -> Stored:
        """The document as it is committed now."""
        async with workspace_transaction(self._pool, self.workspace_id) as connection:
            stored = await select_stored(connection, self.document_id)
        if stored is None:
            raise Gone
        return stored

    async def load_after(self, seq: int) -> list[tuple[int, bytes]] | None:
        """What was committed after `seq`; None where it has become part of a snapshot, or the document is gone."""
        async with workspace_transaction(self._pool, self.workspace_id) as connection:
            return await select_updates_after(connection, self.document_id, seq)

    async def append(self, updates: Sequence[Update], new_clients: Mapping[Actor, Sequence[int]]) -> int:
        """The number of the last of `updates`, which are now committed, and follow each other. `new_clients` are
        noted with them: whose they are.
        """
        if new_clients:
            async with workspace_transaction(self._pool, self.workspace_id) as connection:
                last = await append_updates(connection, self.workspace_id, self.document_id, updates)
                if last is not None:
                    for actor, clients in new_clients.items():
                        await insert_clients(connection, self.document_id, clients, actor)
        else:  # One statement, which is a transaction of its own: a keystroke costs one round trip.
            async with asyncio.timeout(TRANSACTION_S):
                last = await append_updates(self._pool, self.workspace_id, self.document_id, updates)
        if last is None:
            raise Gone
        return last

    async def write_text(self, seq: int, text: str) -> None:
        """What lists and searches see."""
        async with workspace_transaction(self._pool, self.workspace_id) as connection:
            await upsert_text(connection, self.document_id, seq, text)
