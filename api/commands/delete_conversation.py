"""A conversation disappears; its runs are cancelled."""

from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.errors import not_found
from api.resources import Resources
from common.failpoints import failpoint
from common.model.run_state import CancelReason
from common.store.conversations import lock_conversation, update_conversation_deleted
from common.store.database import workspace_transaction
from common.store.runs import select_unfinished_runs


async def delete_conversation(resources: Resources, principal: Principal, conversation_id: UUID) -> None:
    """Deletes softly: nobody sees it any more, its rows remain. Raises `not_found`."""
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await lock_conversation(connection, conversation_id) is None:
            raise not_found()
        for run in reversed(await select_unfinished_runs(connection, conversation_id)):
            await aftermath.cancel(connection, run.id, CancelReason.CONVERSATION_DELETED, promote=False)
        await update_conversation_deleted(connection, conversation_id)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
