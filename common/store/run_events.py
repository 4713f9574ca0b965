"""Events of a run as Postgres knows them: `started` with what is committed, and the stored end."""

from typing import NamedTuple
from uuid import UUID

import msgspec

from common.ids import EventId
from common.model.events import Started, decode_event, encode_event, encode_started
from common.model.messages import for_event
from common.store.database import Connection
from common.store.run_messages import select_run_messages


class StoredEnd(NamedTuple):
    """How a run that has ended is told once its stream is gone. `started` bears no id of its own."""

    started: bytes
    terminal: bytes
    terminal_id: EventId


async def select_started(connection: Connection, run_id: UUID, attempt: int | None = None) -> bytes | None:
    """`started` with the messages committed so far, for `attempt` (default: the run's); None for an unknown run."""
    row = await connection.fetchrow(
        """
        select id, conversation_id, trigger_message_id, agent_id, provider, model, attempt from runs where id = $1
        """,
        run_id,
    )
    if row is None:
        return None
    messages = [for_event(message) for message in await select_run_messages(connection, run_id)]
    return encode_started(
        Started(
            run_id=row["id"],
            conversation_id=row["conversation_id"],
            trigger_message_id=row["trigger_message_id"],
            agent_id=row["agent_id"],
            provider=row["provider"],
            model=row["model"],
            attempt=row["attempt"] if attempt is None else attempt,
            messages=messages,
        )
    )


async def select_whole_started(connection: Connection, data: bytes) -> bytes:
    """The `started` in `data` with the messages that it only names, however large they are."""
    started = decode_event(data)
    if not isinstance(started, Started) or started.message_ids is None:
        return data
    named = set(started.message_ids)
    stored = await select_run_messages(connection, started.run_id)
    messages = [for_event(message) for message in stored if message.id in named]
    return encode_event(msgspec.structs.replace(started, messages=messages, message_ids=None))


async def select_stored_end(connection: Connection, run_id: UUID) -> StoredEnd | None:
    """The end of the run; None while it has none, or for an unknown run."""
    row = await connection.fetchrow(
        "select terminal_attempt, terminal_n, terminal_event from runs where id = $1 and finished_at is not null",
        run_id,
    )
    if row is None:
        return None
    started = await select_started(connection, run_id)
    assert started is not None, "a run with an end exists"
    return StoredEnd(started, row["terminal_event"].encode(), EventId(row["terminal_attempt"], row["terminal_n"]))
