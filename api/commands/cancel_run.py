"""A run is asked to end: committed first, then signalled; its worker finds the request even if the signal is lost."""

import asyncio
from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.errors import not_found
from api.resources import Resources
from common.failpoints import failpoint
from common.model.messages import Run
from common.model.run_state import CancelReason
from common.store.conversations import lock_conversation
from common.store.database import workspace_transaction
from common.store.runs import select_run

_WAIT_S = 2.0
_FIRST_LOOK_S = 0.02
_NEXT_LOOK_S = 0.1


async def cancel_run(resources: Resources, principal: Principal, run_id: UUID) -> Run:
    """The run once it has ended, or as it is after 2 s. Twice, or after the end, is fine. Raises `not_found`."""
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        run = await select_run(connection, run_id)
        if run is None:
            raise not_found()
        if run.state.is_terminal:
            return run
        await lock_conversation(connection, run.conversation_id)
        await aftermath.cancel(connection, run_id, CancelReason.USER, promote=True)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
    return await wait_for_end(resources, principal, run)


async def wait_for_end(resources: Resources, principal: Principal, run: Run) -> Run:
    """The run once it has ended, or as it is after 2 s. Raises `not_found` when its conversation was deleted."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _WAIT_S
    pause_s = 0.0
    while True:
        async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
            latest = await select_run(connection, run.id)
        if latest is None:
            # Its conversation was deleted meanwhile, which ends it as well.
            raise not_found()
        if latest.state.is_terminal or loop.time() >= deadline:
            return latest
        pause_s = min(_NEXT_LOOK_S, pause_s + _FIRST_LOOK_S)
        await asyncio.sleep(pause_s)
