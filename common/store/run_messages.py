"""What a run adds to its conversation: assistant and tool messages, and what the model reads of the rest."""

from typing import Any
from uuid import UUID

import msgspec

from common.ids import new_id
from common.model.clean import clean, clean_json
from common.model.messages import Message, Role, ToolCallRequest
from common.model.run_state import Outcome
from common.model.steps import StepOutput
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


async def insert_step_message(
    connection: Connection, *, run_id: UUID, step: int, output: StepOutput, superseded: bool
) -> Message:
    """The assistant message of a step, behind the run's earlier output; the run is locked by the caller.

    Positions behind it are reserved for the results of its calls, so that these keep the calls' order.
    """
    row = await connection.fetchrow(
        f"""
        insert into messages (workspace_id, id, conversation_id, run_id, step, turn, position, role, content,
                              reasoning, tool_calls, provider_data, agent_id, provider, model, usage, superseded_at)
        select r.workspace_id, $2, r.conversation_id, r.id, $3, r.turn,
               (select max(m.position + coalesce(jsonb_array_length(m.tool_calls), 0)) + 1 from messages m
                where m.workspace_id = r.workspace_id and m.conversation_id = r.conversation_id
                  and m.turn = r.turn),
               'assistant', $4, $5, $6, $7, r.agent_id, r.provider, r.model, $8,
               case when $9 then clock_timestamp() end
        from runs r where r.id = $1
        returning {MESSAGE_COLUMNS}
        """,
        run_id,
        new_id(),
        step,
        clean(output.content),
        None if output.reasoning is None else clean(output.reasoning),
        output.tool_calls or None,
        None if output.provider_data is None else clean_json(output.provider_data),
        output.usage,
        superseded,
    )
    return read_message(row)


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


async def select_step_message(connection: Connection, run_id: UUID, step: int) -> Message | None:
    """The assistant message of a step, if it is committed."""
    row = await connection.fetchrow(
        f"select {MESSAGE_COLUMNS} from messages where run_id = $1 and step = $2 and role = 'assistant'",
        run_id,
        step,
    )
    return None if row is None else read_message(row)


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


async def select_last_answer(connection: Connection, run_id: UUID) -> UUID | None:
    """The run's last assistant message."""
    found: UUID | None = await connection.fetchval(
        "select id from messages where run_id = $1 and role = 'assistant' order by position desc limit 1", run_id
    )
    return found
