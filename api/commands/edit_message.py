"""A message gets another text; the model reads that one from the next run on."""

from uuid import UUID

from api.auth import Principal
from api.commands.begin_run import busy
from api.errors import not_found
from api.resources import Resources
from common.failpoints import failpoint
from common.model.messages import Message
from common.store.conversations import lock_conversation
from common.store.database import workspace_transaction
from common.store.messages import Place, select_message, select_turns, update_message_edited
from common.store.runs import select_unfinished_runs


async def edit_message(
    resources: Resources, principal: Principal, conversation_id: UUID, message_id: UUID, content: str
) -> Message:
    """The message with its edit. Raises `not_found`, or `conversation_busy` when a run may be reading it."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await lock_conversation(connection, conversation_id) is None:
            raise not_found()
        found = await select_message(connection, conversation_id, message_id)
        if found is None:
            raise not_found()
        place, _ = found
        unfinished = await select_unfinished_runs(connection, conversation_id)
        turns = await select_turns(connection, [run.trigger_message_id for run in unfinished])
        for run in unfinished:
            if place <= Place(turns[run.trigger_message_id], 0):
                raise busy(run)
        message = await update_message_edited(connection, message_id, content)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    return message
