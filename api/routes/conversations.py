"""Conversations."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET

from api.auth import authenticate
from api.commands.choice import Wish, check_wish
from api.commands.delete_conversation import delete_conversation
from api.errors import invalid, not_found
from api.pagination import DEFAULT_LIMIT, CursorText, Limit, ListCursor, NewestFirst
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from common.ids import new_id
from common.model.answers import ConversationDetail, Page
from common.model.messages import Conversation
from common.model.requests import ConversationChange, NewConversation
from common.store.conversations import (
    insert_conversation,
    select_conversation,
    select_conversations,
    update_conversation,
)
from common.store.database import workspace_transaction
from common.store.messages import select_messages
from common.store.runs import select_latest_run, select_unfinished_runs

Archived = Annotated[bool, QueryParameter(name="archived", description="True: the archived ones, and no others.")]
Pinned = Annotated[
    bool | None, QueryParameter(name="pinned", description="True: pinned ones only; false: the others only.")
]
Search = Annotated[
    str | None,
    QueryParameter(name="q", min_length=1, max_length=200, description="A part of the title, in upper or lower case."),
]
WithMessages = Annotated[bool, QueryParameter(name="messages", description="False: `messages` is null.")]


@post("/", responses=refusals(413, 415))
async def create_conversation(resources: Process, principal: Asker, data: JSONBody[NewConversation]) -> Conversation:
    """Makes a conversation."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        await check_wish(connection, Wish(data.agent_id, data.provider, data.model))
        return await insert_conversation(connection, new_id(), data, principal.user)


@get("/", responses=refusals())
async def list_conversations(
    resources: Process,
    principal: Asker,
    archived: Archived = False,
    pinned: Pinned = None,
    search: Search = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Page[Conversation]:
    """Lists conversations, newest first; archived ones only when asked for, deleted ones never."""
    if search is not None and "\x00" in search:
        raise invalid("q: text may not contain U+0000")
    cursors = ListCursor("conversations", principal.workspace_id, archived, pinned, search)
    before = cursors.read(cursor, NewestFirst)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        conversations = await select_conversations(
            connection, archived=archived, pinned=pinned, title=search, before=before, limit=limit + 1
        )
    return cursors.page(conversations, limit, lambda found: (found.created_at, found.id))


@get("/{conversation_id:uuid}", responses=refusals(404))
async def get_conversation(
    resources: Process, principal: Asker, conversation_id: FromPath[UUID], messages: WithMessages = True
) -> ConversationDetail:
    """Reads a conversation with all its current messages, the run that keeps it busy, and the last one."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        conversation = await select_conversation(connection, conversation_id)
        if conversation is None:
            raise not_found()
        # The run first: one that ends in between is then shown with its output, never without both.
        unfinished = await select_unfinished_runs(connection, conversation_id)
        last = unfinished[0] if unfinished else await select_latest_run(connection, conversation_id)
        placed = await select_messages(connection, conversation_id) if messages else None
    return ConversationDetail(
        **msgspec.structs.asdict(conversation),
        messages=None if placed is None else [message for _, message in placed],
        active_run=unfinished[0] if unfinished else None,
        last_run=last,
    )


@patch("/{conversation_id:uuid}", responses=refusals(404, 413, 415))
async def change_conversation(
    resources: Process, principal: Asker, conversation_id: FromPath[UUID], data: JSONBody[ConversationChange]
) -> Conversation:
    """Changes a conversation: an absent field stays, null clears. Runs that exist keep what they were made with."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await select_conversation(connection, conversation_id) is None:
            raise not_found()
        await check_wish(connection, _wish(data))
        conversation = await update_conversation(connection, conversation_id, data)
    if conversation is None:
        raise not_found()
    return conversation


@delete("/{conversation_id:uuid}", responses=refusals(404))
async def remove_conversation(resources: Process, principal: Asker, conversation_id: FromPath[UUID]) -> None:
    """Deletes a conversation and cancels its runs."""
    await delete_conversation(resources, principal, conversation_id)


def _wish(change: ConversationChange) -> Wish:
    return Wish(
        None if change.agent_id is UNSET else change.agent_id,
        None if change.provider is UNSET else change.provider,
        None,
    )


conversations = Router(
    "/v1/conversations",
    guards=[authenticate],
    tags=["Conversations"],
    route_handlers=[
        create_conversation,
        list_conversations,
        get_conversation,
        change_conversation,
        remove_conversation,
    ],
)
