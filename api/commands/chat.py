"""A post of a chat whose client holds the messages and sends them along: what it wants is read from its last message.

The history is the server's. Of the client's only the last message of the user counts: one that is unknown opens a
turn, one that is known is answered, with the text that the client shows.
"""

from typing import Literal, NamedTuple
from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.commands.chat_names import chat_id, message_ids, read_uuid
from api.commands.regenerate import answer_anew
from api.commands.start_run import open_turn
from api.commands.titles import title_from
from api.errors import invalid
from api.resources import Resources
from common.errors import ErrorCode, ThroughlineError
from common.failpoints import failpoint
from common.ids import new_id
from common.model.messages import Conversation, Message, Run
from common.model.requests import NewMessage, Regeneration
from common.model.ui_messages import ChatRequest, PostedMessage
from common.store.catalogue import select_offers
from common.store.conversations import ensure_conversation, lock_conversation
from common.store.database import Connection, workspace_transaction
from common.store.messages import select_message, update_message_edited
from common.store.runs import select_latest_run, select_run, select_run_of_trigger

MAX_TEXT_BYTES = 1_000_000
"""As much as a body may have where a message is all that is sent."""


class Said(NamedTuple):
    """What the user said: under which ids it may be stored, and the text."""

    ids: list[UUID]
    text: str


class _Post(NamedTuple):
    """One request within its transaction."""

    resources: Resources
    connection: Connection
    principal: Principal
    conversation: Conversation
    request: ChatRequest
    aftermath: Aftermath


async def post_chat(resources: Resources, principal: Principal, request: ChatRequest) -> Run:
    """The run that answers the request. The chat is made when it is new; the same message again finds its run.

    Raises `not_found` for a chat that was deleted, `invalid_request`, and what `start_run` and `regenerate` raise.
    """
    conversation_id = chat_id(request.id)
    said = _read_said(conversation_id, request)
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        title = None if said is None else title_from(said.text)
        conversation = await _enter(connection, principal, conversation_id, title)
        post = _Post(resources, connection, principal, conversation, request, aftermath)
        run = await _carry_out(post, said)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
    return run


def _read_said(conversation_id: UUID, request: ChatRequest) -> Said | None:
    message = request.last
    regenerates = request.trigger == "regenerate-message"
    if message is None:
        if regenerates:
            return None
        raise invalid("messages: there is none")
    if message.role != "user":
        if regenerates:
            return None
        raise invalid("messages: the last one is not the user's. Tools are run by the server: there is nothing to add.")
    ids = [new_id()] if message.id is None else message_ids(conversation_id, message.id)
    return Said(ids, _read_text(message))


def _read_text(message: PostedMessage) -> str:
    others = sorted({part.type for part in message.parts} - {"text"})
    if others:
        raise invalid(f"messages: only text can be sent, not {', '.join(others)}")
    text = "".join(part.text or "" for part in message.parts)
    if not text:
        raise invalid("messages: the last one has no text")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ThroughlineError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"messages: the last one may have {MAX_TEXT_BYTES:,} bytes of text"
        )
    return text


async def _enter(
    connection: Connection, principal: Principal, conversation_id: UUID, title: str | None
) -> Conversation:
    """The chat, locked; made when it is new."""
    conversation = await lock_conversation(connection, conversation_id)
    if conversation is None:
        await ensure_conversation(connection, conversation_id, title, principal.user)
        conversation = await lock_conversation(connection, conversation_id)
    if conversation is None:
        raise ThroughlineError(ErrorCode.NOT_FOUND, "This chat was deleted.")
    return conversation


async def _carry_out(post: _Post, said: Said | None) -> Run:
    stored = None if said is None else await _find(post, said.ids)
    if said is not None and stored is None:
        # Also when it is to be "regenerated": so does a client try again what never arrived.
        return await _open_turn(post, said)
    if said is None or stored is None:
        return await _answer_anew(post, await _find_turn(post))
    if post.request.trigger == "regenerate-message":
        target = await _find_named(post)
        return await _answer_edited(post, stored, said.text if target in (None, stored.id) else None, target)
    return await _answer_again(post, stored, said)


async def _open_turn(post: _Post, said: Said) -> Run:
    request = post.request
    if request.trigger == "submit-message" and request.message_id is not None:
        _check_edits(post, said.ids)
    new = NewMessage(
        content=said.text,
        agent_id=request.agent_id,
        provider=request.provider,
        model=request.model,
        if_busy=request.if_busy,
        priority=request.priority,
    )
    begun = await open_turn(
        post.resources,
        post.connection,
        post.principal,
        post.conversation,
        await select_offers(post.connection),
        new,
        post.aftermath,
        said.ids[-1],
    )
    assert begun.run is not None, "a user's message starts a run"
    return begun.run


async def _answer_again(post: _Post, stored: Message, said: Said) -> Run:
    """A message that is known is submitted: an edit of it, or a repetition of its first post."""
    edits = post.request.message_id is not None
    if edits:
        _check_edits(post, said.ids)
    same = said.text == _text_of(stored)
    run = await select_run_of_trigger(post.connection, post.conversation.id, stored.id) if same else None
    if run is not None and not (edits and run.state.is_terminal):
        return run
    if not same and not edits:
        raise ThroughlineError(
            ErrorCode.IDEMPOTENCY_KEY_REUSED, "messages: another message of this chat has this id already"
        )
    return await _answer_edited(post, stored, said.text, None)


async def _answer_edited(post: _Post, stored: Message, text: str | None, target: UUID | None) -> Run:
    run = await _answer_anew(post, target or stored.id)
    if text is not None and text != _text_of(stored):
        await update_message_edited(post.connection, stored.id, text)
    return run


async def _answer_anew(post: _Post, message_id: UUID) -> Run:
    request = post.request
    # Nothing can wait behind the turn that it replaces.
    if_busy: Literal["reject", "interrupt"] = "interrupt" if request.if_busy == "interrupt" else "reject"
    change = Regeneration(
        agent_id=request.agent_id,
        provider=request.provider,
        model=request.model,
        if_busy=if_busy,
        priority=request.priority,
    )
    begun = await answer_anew(
        post.resources, post.connection, post.principal, post.conversation, message_id, change, post.aftermath
    )
    assert begun.run is not None, "a turn that is answered anew has a run"
    return begun.run


async def _find(post: _Post, ids: list[UUID]) -> Message | None:
    for message_id in ids:
        found = await select_message(post.connection, post.conversation.id, message_id)
        if found is not None:
            return found[1]
    return None


async def _find_named(post: _Post) -> UUID | None:
    """The message that `messageId` names; an answer bears the id of its run, which stands for what it answers."""
    name = post.request.message_id
    if name is None:
        return None
    run_id = read_uuid(name)
    run = None if run_id is None else await select_run(post.connection, run_id)
    if run is not None and run.conversation_id == post.conversation.id:
        return run.trigger_message_id
    message = await _find(post, message_ids(post.conversation.id, name))
    return None if message is None else message.id


async def _find_turn(post: _Post) -> UUID:
    """What to answer anew where the client shows no message of the user: what it names, else the last turn."""
    named = await _find_named(post)
    if named is not None:
        return named
    latest = await select_latest_run(post.connection, post.conversation.id)
    if latest is None:
        raise ThroughlineError(ErrorCode.NO_RUN, "There is nothing to answer in this chat.")
    return latest.trigger_message_id


def _check_edits(post: _Post, ids: list[UUID]) -> None:
    name = post.request.message_id
    if name is not None and message_ids(post.conversation.id, name) != ids:
        raise invalid("messageId: not the last message's. What was answered before is not continued.")


def _text_of(message: Message) -> str:
    return message.content if message.edited_content is None else message.edited_content
