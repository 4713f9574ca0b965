"""Who comes next in a workspace that has as many runs running as it may."""

from uuid import UUID

import structlog

from common.store.database import DATABASE_DOWN
from common.store.run_schedule import find_next_run
from worker.run.resources import Resources

_log = structlog.get_logger(__name__)


async def ring_for_next(resources: Resources, workspace_id: UUID) -> None:
    """A run of the workspace runs no more: rings for the next one, if there is a cap that may have held it back.

    Its own bell was heard in vain, and the worker that has room for it may be another one than this. Never raises for
    a store that is down: workers find the run by themselves, a second later.
    """
    if not (await resources.limits.read(workspace_id)).running_runs:
        return
    try:
        following = await find_next_run(resources.pool, workspace_id)
    except DATABASE_DOWN as error:
        _log.warning("next_run_not_found", error=type(error).__name__)
        return
    if following is not None:
        await resources.bell.ring(following.run_id, following.priority)
