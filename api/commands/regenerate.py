"""A turn is answered anew: a new run for its message; the old output and all later turns are superseded."""

from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.commands.begin_run import Begun, accept, begin_run, begun_before, make_room
from api.commands.choice import Wish, choose
from api.commands.idempotency import once
from api.errors import invalid, not_found
from api.resources import Resources
from common.failpoints import failpoint
from common.model.messages import Conversation, Message, Run
from common.model.requests import Regeneration
from common.model.run_state import CancelReason, Priority
from common.store.catalogue import select_offers
from common.store.conversations import lock_conversation
from common.store.database import Connection, workspace_transaction
from common.store.messages import select_message, select_turn_opener, select_turns, update_superseded
from common.store.run_transitions import supersede_runs
from common.store.runs import select_unfinished_runs


async def regenerate(
    resources: Resources,
    principal: Principal,
    conversation_id: UUID,
    message_id: UUID,
    change: Regeneration,
    key: str | None,
) -> Begun:
    """Runs the turn of a user's message, or of an answer to it, again; the message's own choices still count.

    Raises `not_found`, `invalid_request` for a message that has no turn to answer, and what `start_run` raises.
    """
    request = once(principal, key, "regenerate", conversation_id, message_id, change)
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        kept = await request.begin(connection)
        if kept is not None:
            return await begun_before(connection, kept)
        conversation = await lock_conversation(connection, conversation_id)
        if conversation is None:
            raise not_found()
        begun = await answer_anew(resources, connection, principal, conversation, message_id, change, aftermath)
        await request.keep(connection, begun.run, begun.answer)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
    return begun


async def answer_anew(
    resources: Resources,
    connection: Connection,
    principal: Principal,
    conversation: Conversation,
    message_id: UUID,
    change: Regeneration,
    aftermath: Aftermath,
) -> Begun:
    """`regenerate` inside a transaction that holds the conversation's lock."""
    trigger, turn = await _find_trigger(connection, conversation.id, message_id)
    wish = Wish(
        change.agent_id or trigger.agent_id,
        change.provider or trigger.provider,
        change.model or (None if change.provider else trigger.model),
    )
    offers = await select_offers(connection)
    choice = await choose(connection, resources.settings, conversation, wish, offers)
    unfinished = await select_unfinished_runs(connection, conversation.id)
    turns = await select_turns(connection, [run.trigger_message_id for run in unfinished])

    def reason_for(run: Run) -> CancelReason:
        replaced = turns[run.trigger_message_id] >= turn
        return CancelReason.SUPERSEDED if replaced else CancelReason.INTERRUPTED

    state = await make_room(connection, conversation.id, change.if_busy, aftermath, reason_for)
    # The runs first: a step that commits in between is then superseded by one of the two.
    await supersede_runs(connection, conversation.id, turn)
    await update_superseded(connection, conversation.id, turn)
    priority = change.priority or Priority.INTERACTIVE
    run = await begin_run(resources, connection, principal, trigger, turn, choice, state, priority, aftermath)
    return accept(trigger, run)


async def _find_trigger(connection: Connection, conversation_id: UUID, message_id: UUID) -> tuple[Message, int]:
    found = await select_message(connection, conversation_id, message_id)
    if found is None:
        raise not_found()
    place, message = found
    trigger = message if place.position == 0 else await select_turn_opener(connection, conversation_id, place.turn)
    if trigger.role != "user":
        raise invalid("messageId: neither a user's message nor an answer to one")
    if trigger.superseded_at is not None:
        raise invalid("messageId: of a turn that was replaced")
    return trigger, place.turn
