"""What a run adds to its conversation: assistant and tool messages, and what the model reads of the rest."""

from typing import Any
from uuid import UUID

import msgspec

from common.ids import new_id
from common.model.clean import clean
from common.model.messages import Message, Role, ToolCallRequest
from common.model.run_state import Outcome
from common.store.database import Connection
from common.store.messages import MESSAGE_COLUMNS, read_message


class HistoryRow(msgspec.Struct, kw_only=True, frozen=True):
    """A message as the model is to see it; `provider` made it, `provider_data` is in that provider's form."""

    role: Role
    content: str
    reasoning: str | None
    tool_calls: list[ToolCallRequest]
    tool_call_id: str | None
    is_error: bool
    provider: str | None
    provider_data: Any | None


async def insert_tool_message(
    connection: Connection,
    *,
    step_message_id: UUID,
    index: int,
    tool_call_id: str,
    content: str,
    outcome: Outcome,
) -> Message:
    """The result of call `index` of a step, at the position that the step reserved for it."""
    row = await connection.fetchrow(
        f"""
        insert into messages (workspace_id, id, conversation_id, run_id, turn, position, role, content,
                              tool_call_id, is_error, outcome, agent_id, superseded_at)
        select a.workspace_id, $2, a.conversation_id, a.run_id, a.turn, a.position + 1 + $3, 'tool', $4,
               $5, $6, $7, a.agent_id, a.superseded_at
        from messages a where a.id = $1
        returning {MESSAGE_COLUMNS}
        """,
        step_message_id,
        new_id(),
        index,
        clean(content),
        tool_call_id,
        outcome is not Outcome.OK,
        outcome,
    )
    return read_message(row)


async def select_run_messages(connection: Connection, run_id: UUID) -> list[Message]:
    """The run's committed messages, in order."""
    rows = await connection.fetch(
        f"select {MESSAGE_COLUMNS} from messages where run_id = $1 and role in ('assistant', 'tool') order by position",
        run_id,
    )
    return [read_message(row) for row in rows]


async def select_step_message(connection: Connection, run_id: UUID, step: int) -> Message:
    """The assistant message of a step that is committed."""
    row = await connection.fetchrow(
        f"select {MESSAGE_COLUMNS} from messages where run_id = $1 and step = $2 and role = 'assistant'",
        run_id,
        step,
    )
    return read_message(row)


async def select_tool_message(connection: Connection, run_id: UUID, tool_call_id: str) -> Message:
    """The result of a call that is finished."""
    row = await connection.fetchrow(
        f"select {MESSAGE_COLUMNS} from messages where run_id = $1 and tool_call_id = $2 and role = 'tool'",
        run_id,
        tool_call_id,
    )
    return read_message(row)


async def select_history(
    connection: Connection, conversation_id: UUID, run_id: UUID, turn: int, result_limit: int
) -> list[HistoryRow]:
    """What the model reads: messages up to the run's turn that are not superseded, and the run's own, edits applied.

    Of a result of a tool, the first `result_limit` characters.
    """
    rows = await connection.fetch(
        """
        select role, case when role = 'tool' then left(coalesce(edited_content, content), $4)
                          else coalesce(edited_content, content) end as content,
               reasoning, tool_calls, tool_call_id, is_error, provider,
               case when edited_content is null then provider_data end as provider_data
        from messages
        where conversation_id = $1 and turn <= $3 and (superseded_at is null or run_id = $2)
        order by turn, position
        """,
        conversation_id,
        run_id,
        turn,
        result_limit,
    )
    return [
        HistoryRow(
            role=row["role"],
            content=row["content"],
            reasoning=row["reasoning"],
            tool_calls=msgspec.convert(row["tool_calls"] or [], list[ToolCallRequest]),
            tool_call_id=row["tool_call_id"],
            is_error=bool(row["is_error"]),
            provider=row["provider"],
            provider_data=row["provider_data"],
        )
        for row in rows
    ]
