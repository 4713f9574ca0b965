"""Rows for tests that begin below the API: a conversation, its first message, a run of it."""

from typing import NamedTuple
from uuid import UUID

from common.ids import new_id
from common.model.messages import AgentSettings, Run
from common.model.requests import NewConversation
from common.model.run_state import Priority, RunState
from common.store.conversations import insert_conversation
from common.store.database import Connection, Pool, workspace_transaction
from common.store.messages import NewMessageRow, insert_opening_message
from common.store.runs import NewRun, insert_run

USER = "a-user"


class Seeded(NamedTuple):
    """What was inserted."""

    workspace_id: UUID
    conversation_id: UUID
    run: Run


async def seed_run(
    pool: Pool,
    content: str = "hello",
    *,
    workspace_id: UUID | None = None,
    conversation_id: UUID | None = None,
    state: RunState = RunState.QUEUED,
    provider: str = "echo",
    model: str = "echo",
    tools: tuple[str, ...] = (),
    max_steps: int = 20,
    priority: Priority = Priority.INTERACTIVE,
) -> Seeded:
    """A user's message and its run, in a new conversation of a new workspace unless they are named."""
    workspace_id = workspace_id or new_id()
    async with workspace_transaction(pool, workspace_id) as connection:
        if conversation_id is None:
            conversation_id = new_id()
            await insert_conversation(connection, conversation_id, NewConversation(), USER)
        run = await _insert_turn(
            connection, conversation_id, content, state, provider, model, tools, max_steps, priority
        )
    return Seeded(workspace_id, conversation_id, run)


async def _insert_turn(
    connection: Connection,
    conversation_id: UUID,
    content: str,
    state: RunState,
    provider: str,
    model: str,
    tools: tuple[str, ...],
    max_steps: int,
    priority: Priority,
) -> Run:
    message = NewMessageRow(new_id(), conversation_id, "user", content, None, None, None, USER)
    turn = (await insert_opening_message(connection, message)).turn
    new = NewRun(
        id=new_id(),
        conversation_id=conversation_id,
        trigger_message_id=message.id,
        turn=turn,
        state=state,
        agent_id=None,
        provider=provider,
        model=model,
        instructions="",
        tools=list(tools),
        settings=AgentSettings(),
        max_steps=max_steps,
        created_by=USER,
        priority=priority,
    )
    return await insert_run(connection, new)
