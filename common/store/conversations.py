"""Conversations. Their row is the lock under which turns are allocated and runs begin and end."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from common.model.messages import Conversation
from common.model.requests import ConversationChange, NewConversation
from common.store.catalogue import OFFERS, Offers, read_offers
from common.store.database import Connection

_COLUMNS = """
    id, title, agent_id, provider, model, system_prompt, pinned_at, archived_at, last_message_at, created_by,
    created_at, updated_at
"""


async def insert_conversation(
    connection: Connection, conversation_id: UUID, new: NewConversation, created_by: str
) -> Conversation:
    """The conversation as inserted; its agent has been looked up by the caller."""
    row = await connection.fetchrow(
        f"""
        insert into conversations (workspace_id, id, title, agent_id, provider, model, system_prompt, created_by)
        values (current_workspace(), $1, $2, $3, $4, $5, $6, $7)
        returning {_COLUMNS}
        """,
        conversation_id,
        new.title,
        new.agent_id,
        new.provider,
        new.model,
        new.system_prompt,
        created_by,
    )
    return Conversation(**row)


async def ensure_conversation(
    connection: Connection, conversation_id: UUID, title: str | None, created_by: str
) -> None:
    """Makes the conversation unless there is one by that id, deleted or not."""
    await connection.execute(
        """
        insert into conversations (workspace_id, id, title, created_by) values (current_workspace(), $1, $2, $3)
        on conflict (workspace_id, id) do nothing
        """,
        conversation_id,
        title,
        created_by,
    )


async def select_conversation(connection: Connection, conversation_id: UUID) -> Conversation | None:
    """The conversation, unless it is deleted."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from conversations where id = $1 and deleted_at is null", conversation_id
    )
    return None if row is None else Conversation(**row)


async def lock_conversation(connection: Connection, conversation_id: UUID) -> Conversation | None:
    """The conversation, held against other posts, ends and changes until the transaction is over."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from conversations where id = $1 and deleted_at is null for no key update",
        conversation_id,
    )
    return None if row is None else Conversation(**row)


async def lock_conversation_with_offers(
    connection: Connection, conversation_id: UUID
) -> tuple[Conversation, Offers] | None:
    """`lock_conversation`, and what `select_offers` gives, in one statement."""
    row = await connection.fetchrow(
        f"""
        select {_COLUMNS}, array({OFFERS}) as offers
        from conversations where id = $1 and deleted_at is null for no key update
        """,
        conversation_id,
    )
    if row is None:
        return None
    columns = dict(row)
    offers = read_offers(tuple(columns.pop("offers")))
    return Conversation(**columns), offers


async def select_conversations(
    connection: Connection,
    *,
    archived: bool,
    pinned: bool | None,
    title: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Conversation]:
    """Newest first; `title` is searched for as it is, in any case of letters."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from conversations
        where deleted_at is null and (archived_at is not null) = $1
          and ($2::boolean is null or (pinned_at is not null) = $2)
          and ($3::text is null or title ilike $3)
          and ($4::timestamptz is null or (created_at, id) < ($4, $5))
        order by created_at desc, id desc limit $6
        """,
        archived,
        pinned,
        None if title is None else f"%{_escape_like(title)}%",
        before[0] if before else None,
        before[1] if before else None,
        limit,
    )
    return [Conversation(**row) for row in rows]


async def update_conversation(
    connection: Connection, conversation_id: UUID, change: ConversationChange
) -> Conversation | None:
    """The conversation with the fields that `change` names; None when there is none.

    Pinning or archiving again keeps the first time.
    """
    fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    # The names are those of the struct's fields, never the client's.
    assignments = "".join(f", {_assignment(name, f'${i}')}" for i, name in enumerate(fields, start=2))
    row = await connection.fetchrow(
        f"""
        update conversations set updated_at = clock_timestamp() {assignments}
        where id = $1 and deleted_at is null
        returning {_COLUMNS}
        """,
        conversation_id,
        *(_argument(name, value) for name, value in fields.items()),
    )
    return None if row is None else Conversation(**row)


async def update_conversation_deleted(connection: Connection, conversation_id: UUID) -> None:
    """Nobody sees the conversation from here on."""
    await connection.execute("update conversations set deleted_at = clock_timestamp() where id = $1", conversation_id)


async def update_last_turn(connection: Connection, conversation_id: UUID, turns: int = 1) -> int:
    """Opens the next turns and returns the last of them; the caller holds the conversation's lock."""
    turn: int = await connection.fetchval(
        """
        update conversations
        set last_turn = last_turn + $2, last_message_at = clock_timestamp(), updated_at = clock_timestamp()
        where id = $1
        returning last_turn
        """,
        conversation_id,
        turns,
    )
    return turn


def _assignment(name: str, value: str) -> str:
    if name in ("pinned", "archived"):
        return f"{name}_at = case when {value}::boolean then coalesce({name}_at, clock_timestamp()) end"
    return f"{name} = {value}"


def _argument(name: str, value: Any) -> Any:
    return bool(value) if name in ("pinned", "archived") else value


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
