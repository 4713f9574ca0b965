"""Messages of a conversation, in their order `(turn, position)`. What runs write is in run_messages.py."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta

from common.model.messages import Message, Role, ToolCallRequest, Usage
from common.model.run_state import Outcome
from common.store.database import Connection, Row

MESSAGE_COLUMNS = """
    id, conversation_id, run_id, role, content, reasoning, tool_calls, tool_call_id, is_error, outcome, agent_id,
    provider, model, usage, edited_content, edited_at, superseded_at, created_by, created_at
"""


class NewMessageRow(NamedTuple):
    """A message that a client posts; agent, provider and model are its own choices, None where it made none."""

    id: UUID
    conversation_id: UUID
    role: Role
    content: str
    agent_id: UUID | None
    provider: str | None
    model: str | None
    created_by: str


class Place(NamedTuple):
    """Where a message stands in its conversation; a message at position 0 opened its turn."""

    turn: Annotated[int, Meta(ge=0, lt=2**31)]
    position: Annotated[int, Meta(ge=0, lt=2**31)]


class OpenedTurn(NamedTuple):
    """A turn with the message that opened it. `is_busy`: there are runs of the conversation that have not ended."""

    turn: int
    is_busy: bool
    message: Message


async def insert_opening_message(connection: Connection, new: NewMessageRow) -> OpenedTurn:
    """The conversation's next turn with the message that opens it; the caller holds the conversation's lock."""
    row = await connection.fetchrow(
        f"""
        with opened as (
            update conversations
            set last_turn = last_turn + 1, last_message_at = clock_timestamp(), updated_at = clock_timestamp()
            where id = $2
            returning last_turn
        )
        insert into messages (workspace_id, id, conversation_id, role, content, agent_id, provider, model, created_by,
                              turn, position)
        select current_workspace(), $1, $2, $3, $4, $5, $6, $7, $8, last_turn, 0 from opened
        returning turn, {MESSAGE_COLUMNS},
            exists (select from runs r where r.conversation_id = $2 and r.finished_at is null) as is_busy
        """,
        *new,
    )
    columns = dict(row)
    return OpenedTurn(columns.pop("turn"), columns.pop("is_busy"), _message(columns))


async def insert_messages(connection: Connection, rows: Sequence[tuple[NewMessageRow, int]]) -> None:
    """Messages that start no run, each first of its turn; the caller allocated the turns."""
    await connection.executemany(
        """
        insert into messages (workspace_id, id, conversation_id, role, content, agent_id, provider, model, created_by,
                              turn, position)
        values (current_workspace(), $1, $2, $3, $4, $5, $6, $7, $8, $9, 0)
        """,
        [(*new, turn) for new, turn in rows],
    )


async def select_messages(
    connection: Connection,
    conversation_id: UUID,
    *,
    superseded: bool = False,
    after: Place | None = None,
    limit: int | None = None,
) -> list[tuple[Place, Message]]:
    """In the conversation's order, each with its place; `superseded` shows replaced ones too."""
    rows = await connection.fetch(
        f"""
        select turn, position, {MESSAGE_COLUMNS} from messages
        where conversation_id = $1 and ($2 or superseded_at is null)
          and ($3::integer is null or (turn, position) > ($3, $4::integer))
        order by turn, position limit $5
        """,
        conversation_id,
        superseded,
        after and after.turn,
        after and after.position,
        limit,
    )
    return [_read_placed(row) for row in rows]


async def select_message(
    connection: Connection, conversation_id: UUID, message_id: UUID
) -> tuple[Place, Message] | None:
    """The message and its place, if it is of this conversation."""
    row = await connection.fetchrow(
        f"select turn, position, {MESSAGE_COLUMNS} from messages where conversation_id = $1 and id = $2",
        conversation_id,
        message_id,
    )
    return None if row is None else _read_placed(row)


async def select_turn_opener(connection: Connection, conversation_id: UUID, turn: int) -> Message:
    """The message that opened the turn."""
    row = await connection.fetchrow(
        f"select {MESSAGE_COLUMNS} from messages where conversation_id = $1 and turn = $2 and position = 0",
        conversation_id,
        turn,
    )
    return read_message(row)


async def select_turns(connection: Connection, message_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The turn of each of these messages."""
    rows = await connection.fetch("select id, turn from messages where id = any($1::uuid[])", list(message_ids))
    return {row["id"]: row["turn"] for row in rows}


async def update_message_edited(connection: Connection, message_id: UUID, content: str) -> Message:
    """The message with its edit; the original stays in `content`."""
    row = await connection.fetchrow(
        f"""
        update messages set edited_content = $2, edited_at = clock_timestamp() where id = $1
        returning {MESSAGE_COLUMNS}
        """,
        message_id,
        content,
    )
    return read_message(row)


async def update_superseded(connection: Connection, conversation_id: UUID, turn: int) -> None:
    """Replaces what follows the message that opened `turn`: its output and all later turns."""
    await connection.execute(
        """
        update messages set superseded_at = clock_timestamp()
        where conversation_id = $1 and (turn, position) > ($2, 0) and superseded_at is null
        """,
        conversation_id,
        turn,
    )


def read_message(row: Row) -> Message:
    """The message in a row of MESSAGE_COLUMNS."""
    return _message(dict(row))


def _read_placed(row: Row) -> tuple[Place, Message]:
    turn, position, *_ = row
    columns = {name: value for name, value in row.items() if name not in ("turn", "position")}
    return Place(turn, position), _message(columns)


def _message(columns: dict[str, Any]) -> Message:
    return Message(
        **{
            **columns,
            "tool_calls": columns["tool_calls"] and msgspec.convert(columns["tool_calls"], list[ToolCallRequest]),
            "outcome": columns["outcome"] and Outcome(columns["outcome"]),
            "usage": columns["usage"] and msgspec.convert(columns["usage"], Usage),
        }
    )
