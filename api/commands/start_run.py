"""A message comes in: one transaction stores it and its run; then the bell rings."""

from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.commands.begin_run import Begun, accept, begin_run, begun_before, make_room
from api.commands.choice import Wish, check_wish, choose
from api.commands.idempotency import once
from api.errors import invalid, not_found
from api.resources import Resources
from common.failpoints import failpoint
from common.ids import new_id
from common.model.messages import Conversation
from common.model.requests import NewMessage
from common.model.run_state import Priority, RunState
from common.store.catalogue import Offers
from common.store.conversations import lock_conversation_with_offers
from common.store.database import Connection, workspace_transaction
from common.store.messages import NewMessageRow, OpenedTurn, insert_opening_message


async def start_run(
    resources: Resources, principal: Principal, conversation_id: UUID, new: NewMessage, key: str | None
) -> Begun:
    """Stores the message and, unless it asks for none, its run; with a key that was used before, does nothing.

    Raises `not_found`, `conversation_busy`, `idempotency_key_reused`, and what `choose` raises; then nothing is kept.
    """
    if new.run and new.role != "user":
        raise invalid(f"run: a message of role {new.role!r} starts no run; send false")
    request = once(principal, key, "start_run", conversation_id, new)
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        kept = await request.begin(connection)
        if kept is not None:
            return await begun_before(connection, kept)
        locked = await lock_conversation_with_offers(connection, conversation_id)
        if locked is None:
            raise not_found()
        begun = await open_turn(resources, connection, principal, *locked, new, aftermath)
        await request.keep(connection, begun.run, begun.answer)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
    return begun


async def open_turn(
    resources: Resources,
    connection: Connection,
    principal: Principal,
    conversation: Conversation,
    offers: Offers,
    new: NewMessage,
    aftermath: Aftermath,
    message_id: UUID | None = None,
) -> Begun:
    """The message, and its run if it asks for one, inside a transaction that holds the conversation's lock.

    `message_id` is for a protocol whose clients name their messages; nothing else of the conversation has it.
    """
    wish = Wish(new.agent_id, new.provider, new.model)
    message_id = message_id or new_id()
    if not new.run:
        await check_wish(connection, wish)
        opened = await _append(connection, principal, conversation.id, new, message_id)
        return accept(opened.message, None)
    choice = await choose(connection, resources.settings, conversation, wish, offers)
    turn, is_busy, message = await _append(connection, principal, conversation.id, new, message_id)
    state = RunState.QUEUED
    if is_busy:
        state = await make_room(connection, conversation.id, new.if_busy, aftermath)
    priority = new.priority or Priority.INTERACTIVE
    run = await begin_run(resources, connection, principal, message, turn, choice, state, priority, aftermath)
    return accept(message, run)


async def _append(
    connection: Connection, principal: Principal, conversation_id: UUID, new: NewMessage, message_id: UUID
) -> OpenedTurn:
    return await insert_opening_message(
        connection,
        NewMessageRow(
            id=message_id,
            conversation_id=conversation_id,
            role=new.role,
            content=new.content,
            agent_id=new.agent_id,
            provider=new.provider,
            model=new.model,
            created_by=principal.user,
        ),
    )
