"""How a run's transactions are carried out: to their end, and until they succeed or the run is somebody else's."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from common.errors import LeaseLost
from common.failpoints import failpoint
from common.store.database import DATABASE_DOWN, Connection, Pool, workspace_transaction
from worker.run.lease import Lease

_log = structlog.get_logger(__name__)
T = TypeVar("T")
_REFUSED_S = 60.0


async def finish_even_if_cancelled(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end; a cancellation that arrives meanwhile is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.info("commit_failed_while_cancelled", error=type(failure).__name__)
        raise cancelled
    return task.result()


async def persistently(
    pool: Pool, lease: Lease, work: Callable[[Connection], Awaitable[T]], *, held: str | None = None
) -> T:
    """A transaction, repeated while Postgres is away; `held` names one that holds the run, which extends the lease.

    Raises LeaseLost once the run is known to be somebody else's, when the pool closes, and after _REFUSED_S in which
    Postgres has answered our heartbeats, but never this: the run must not stay ours for ever, and the next attempt may
    fare better.
    """
    pause_s = 0.05
    refused_since: float | None = None
    while True:
        sent_at = time.monotonic()
        try:
            async with workspace_transaction(pool, lease.workspace_id) as connection:
                result = await work(connection)
                if held is not None:
                    await failpoint(f"{held}.before_commit")
            if held is not None:
                await failpoint(f"{held}.after_commit")
        except DATABASE_DOWN as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from error  # it met the failure, and would be lost
            if pool.is_closing():  # the worker is leaving; the run goes on elsewhere, once its lease has run out
                raise LeaseLost from error
            _log.warning("commit_repeated", run_id=str(lease.run_id), error=type(error).__name__)
            refused_since = (refused_since or sent_at) if lease.held else None
            if refused_since is not None and time.monotonic() - refused_since > _REFUSED_S:
                _log.error("commit_given_up", run_id=str(lease.run_id), error=repr(error))
                raise LeaseLost from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)
        else:
            if held is not None:
                lease.renewed(sent_at)
            return result
