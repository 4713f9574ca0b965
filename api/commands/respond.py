"""A request for a response: one transaction finds or makes the conversation, stores the messages, and begins a run."""

from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.commands.begin_run import begin_run, make_room
from api.commands.choice import Choice, Wish, choose
from api.commands.idempotency import once
from api.commands.responses_input import Said, chosen_priority, chosen_settings, read_input
from api.commands.responses_model import wish_of_model
from api.commands.titles import title_from
from api.errors import invalid, not_found
from api.resources import Resources
from common.failpoints import failpoint
from common.ids import new_id
from common.model.messages import Conversation, Run
from common.model.requests import NewConversation
from common.model.responses import ConversationReference, NewResponse, parse_id
from common.model.run_state import RunState
from common.store.catalogue import select_offers
from common.store.conversations import insert_conversation, lock_conversation, update_last_turn
from common.store.database import Connection, workspace_transaction
from common.store.messages import NewMessageRow, OpenedTurn, insert_messages, insert_opening_message
from common.store.runs import select_is_newest, select_run


async def respond(resources: Resources, principal: Principal, new: NewResponse, key: str | None) -> Run:
    """The run of the input's last message; with a key that was used before, the run that it began then.

    Raises `invalid_request` for what cannot be honoured, `not_found`, `conversation_busy`, `unknown_agent` and
    `unknown_provider` for a model that is not there, `idempotency_key_reused`; then nothing is kept.
    """
    said = read_input(new)
    request = once(principal, key, "respond", new)
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        kept = await request.begin(connection)
        if kept is not None:
            return await _begun_before(connection, kept.run_id)
        run = await _begin(resources, connection, principal, new, said, aftermath)
        await request.keep(connection, run, b"")
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
    return run


async def _begun_before(connection: Connection, run_id: UUID | None) -> Run:
    run = None if run_id is None else await select_run(connection, run_id)
    if run is None:
        raise not_found()
    return run


async def _begin(
    resources: Resources,
    connection: Connection,
    principal: Principal,
    new: NewResponse,
    said: list[Said],
    aftermath: Aftermath,
) -> Run:
    wish = await wish_of_model(connection, resources.settings, new.model)
    conversation = await _conversation(connection, principal, new, said)
    offers = await select_offers(connection)
    choice = _adjust(await choose(connection, resources.settings, conversation, wish, offers), new)
    turn, is_busy, trigger = await _append(connection, principal, conversation.id, said, wish)
    state = RunState.QUEUED
    if is_busy:
        state = await make_room(connection, conversation.id, "reject", aftermath)
    priority = chosen_priority(new)
    return await begin_run(resources, connection, principal, trigger, turn, choice, state, priority, aftermath)


async def _conversation(
    connection: Connection, principal: Principal, new: NewResponse, said: list[Said]
) -> Conversation:
    """The one that the request names, locked, or a new one."""
    if new.previous_response_id is not None:
        return await _conversation_of_previous(connection, new.previous_response_id)
    if new.conversation is None:
        titled = NewConversation(title=title_from(said[-1].text))
        return await insert_conversation(connection, new_id(), titled, principal.user)
    named = new.conversation
    conversation_id = parse_id(named.id if isinstance(named, ConversationReference) else named, "conv")
    return await _lock(connection, conversation_id)


async def _conversation_of_previous(connection: Connection, previous: str) -> Conversation:
    run_id = parse_id(previous, "resp")
    run = None if run_id is None else await select_run(connection, run_id)
    conversation = await _lock(connection, None if run is None else run.conversation_id)
    if run is not None and not await select_is_newest(connection, run.id):
        raise invalid("previous_response_id: the conversation has gone on since, and cannot be forked")
    return conversation


async def _lock(connection: Connection, conversation_id: UUID | None) -> Conversation:
    conversation = None if conversation_id is None else await lock_conversation(connection, conversation_id)
    if conversation is None:
        raise not_found()
    return conversation


def _adjust(choice: Choice, new: NewResponse) -> Choice:
    """The choice with what holds for this response alone."""
    return choice._replace(
        instructions="\n\n".join(filter(None, [choice.instructions, new.instructions])),
        settings=chosen_settings(new, choice.settings),
    )


async def _append(
    connection: Connection, principal: Principal, conversation_id: UUID, said: list[Said], wish: Wish
) -> OpenedTurn:
    """The turn of the last message; each message opens a turn of its own."""
    rows = [
        NewMessageRow(
            id=new_id(),
            conversation_id=conversation_id,
            role=role,
            content=text,
            agent_id=None,
            provider=None,
            model=None,
            created_by=principal.user,
        )
        for role, text in said
    ]
    earlier = rows[:-1]
    if earlier:
        last_turn = await update_last_turn(connection, conversation_id, len(earlier))
        await insert_messages(
            connection, list(zip(earlier, range(last_turn - len(earlier) + 1, last_turn + 1), strict=True))
        )
    trigger = rows[-1]._replace(agent_id=wish.agent_id, provider=wish.provider, model=wish.model)
    return await insert_opening_message(connection, trigger)
