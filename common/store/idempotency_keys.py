"""Idempotency keys: the first answer to a request, kept for those who ask again."""

from typing import NamedTuple
from uuid import UUID

from common.store.database import Connection


class KeptAnswer(NamedTuple):
    """What the first request with a key was, and what it was answered."""

    request_hash: bytes
    run_id: UUID | None
    answer: bytes


async def insert_key(connection: Connection, user: str, key: str, request_hash: bytes) -> KeptAnswer | None:
    """Takes the key for this transaction (None), or says how it was answered within the last 24 hours.

    Waits for a transaction that holds the same key, so that parallel requests get one answer.
    """
    taken = await connection.fetchval(
        """
        insert into idempotency_keys as k (workspace_id, user_id, key, request_hash)
        values (current_workspace(), $1, $2, $3)
        on conflict (workspace_id, user_id, key) do update
            set request_hash = excluded.request_hash, run_id = null, answer = null, created_at = clock_timestamp()
            where k.created_at < clock_timestamp() - interval '24 hours'
        returning true
        """,
        user,
        key,
        request_hash,
    )
    if taken:
        return None
    row = await connection.fetchrow(
        "select request_hash, run_id, answer from idempotency_keys where user_id = $1 and key = $2", user, key
    )
    return KeptAnswer(row["request_hash"], row["run_id"], row["answer"])


async def update_key_answer(connection: Connection, user: str, key: str, run_id: UUID | None, answer: bytes) -> None:
    """Keeps the answer with the key, in the transaction that made it."""
    await connection.execute(
        "update idempotency_keys set run_id = $3, answer = $4 where user_id = $1 and key = $2",
        user,
        key,
        run_id,
        answer,
    )
