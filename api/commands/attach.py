"""A client that posts again after a drop: its Last-Event-ID names the run that its first post began."""

from typing import NamedTuple
from uuid import UUID

from api.auth import Principal
from api.errors import invalid, not_found
from api.resources import Resources
from common.ids import Cursor, parse_cursor
from common.model.messages import Message, Run
from common.store.conversations import select_conversation
from common.store.database import workspace_transaction
from common.store.messages import select_message
from common.store.runs import select_run


class Attached(NamedTuple):
    """What the client began before, and what it has seen of it."""

    trigger: Message
    run: Run
    cursor: Cursor


async def attach(resources: Resources, principal: Principal, conversation_id: UUID, last_event_id: str) -> Attached:
    """Creates nothing. Raises `not_found`, or `invalid_request` unless the id names a run of this conversation."""
    cursor = parse_cursor(last_event_id)
    if cursor is None or cursor.run_id is None:
        raise invalid("Last-Event-ID: not <runId>:<attempt>-<n>")
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await select_conversation(connection, conversation_id) is None:
            raise not_found()
        run = await select_run(connection, cursor.run_id)
        if run is None or run.conversation_id != conversation_id:
            raise invalid("Last-Event-ID: of no run of this conversation")
        found = await select_message(connection, conversation_id, run.trigger_message_id)
    if found is None:
        raise not_found()
    return Attached(found[1], run, cursor)
