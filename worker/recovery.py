"""What a worker does every second, bell or no bell: due runs, expired leases, missed ends and promotions."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import structlog

from common.failpoints import failpoint
from common.model.run_state import RunErrorCode
from common.redis import REDIS_DOWN
from common.settle import CancelledBy, Failed, RunOutcome, Settled, settle, tell_end
from common.store.conversations import lock_conversation
from common.store.database import DATABASE_DOWN, workspace_transaction
from common.store.run_ends import promote_waiting
from common.store.run_schedule import Expired, find_cancelled, find_promotable, sweep_expired
from worker.job import RunningRuns
from worker.metrics import LEASES_EXPIRED, SWEEPS
from worker.next_run import ring_for_next
from worker.run.resources import Resources

_LOCK_S = 1.0
_TELL_S = 1.0
_log = structlog.get_logger(__name__)
_CRASH_LOOP = "the run crashed its worker again and again"


async def take_due_runs(resources: Resources, runs: RunningRuns) -> None:
    """Claims what nobody rang for, until cancelled."""
    while True:
        try:
            await runs.claim_due()
        except DATABASE_DOWN as error:
            _log.warning("claim_failed", error=type(error).__name__)
        except Exception:
            _log.exception("claim_broke")
        with suppress(TimeoutError):
            async with asyncio.timeout(_pause_s(resources)):
                await runs.due.wait()
        runs.due.clear()


async def sweep(resources: Resources, runs: RunningRuns) -> None:
    """Makes up for what others have left undone, until cancelled; `runs` hears of what is due again.

    What may have to wait for a lock is done beside it: expired leases are looked for every time all the same.
    """
    making_up: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                expired = await sweep_expired(resources.pool, resources.settings.lease_s)
                if expired:
                    await failpoint("sweep.after")
                SWEEPS.labels("ok").inc()
                for lease in expired:
                    LEASES_EXPIRED.labels(lease.verdict).inc()
                    _log.warning(
                        "lease_expired", run_id=str(lease.run_id), attempt=lease.attempt, verdict=lease.verdict
                    )
                if making_up is None or making_up.done():
                    making_up = group.create_task(_make_up(resources, expired), name="make up")
                if expired:
                    runs.due.set()
            except DATABASE_DOWN as error:
                SWEEPS.labels("failed").inc()
                _log.warning("sweep_failed", error=type(error).__name__)
            except Exception:
                SWEEPS.labels("failed").inc()
                _log.exception("sweep_broke")
            await asyncio.sleep(_pause_s(resources))


def _pause_s(resources: Resources) -> float:
    """Workers that started together do not ask together."""
    return resources.settings.sweep_s * random.uniform(0.8, 1.2)  # noqa: S311


async def _make_up(resources: Resources, expired: list[Expired]) -> None:
    """Ends what must end, promotes whom nobody promoted; what it does not come to comes up again.

    The ends are told at last and all at once: relays tell them by themselves, and a Redis that does not answer must
    not delay the next end.
    """
    ended: list[Settled] = []

    async def end(workspace_id: UUID, run_id: UUID, attempt: int, outcome: RunOutcome) -> None:
        with _next_time(run_id=str(run_id)):
            settled = await settle(resources.pool, workspace_id, run_id, outcome, by="sweep", attempt=attempt)
            if settled is not None:
                ended.append(settled)

    for workspace_id, run_id, attempt, verdict in expired:
        if verdict == "crash_loop":
            await end(workspace_id, run_id, attempt, Failed(RunErrorCode.CRASH_LOOP, _CRASH_LOOP, False))
        elif verdict == "cancelled":
            await end(workspace_id, run_id, attempt, CancelledBy())
    for lease in expired:
        with _next_time(run_id=str(lease.run_id)):
            await ring_for_next(resources, lease.workspace_id)
    with _next_time():
        for workspace_id, run_id, attempt in await find_cancelled(resources.pool):
            await end(workspace_id, run_id, attempt, CancelledBy())
    await asyncio.gather(*(_tell(resources, settled) for settled in ended))
    with _next_time():
        for workspace_id, conversation_id in await find_promotable(resources.pool):
            with _next_time(conversation_id=str(conversation_id)):
                await _promote(resources, workspace_id, conversation_id)


async def _tell(resources: Resources, settled: Settled) -> None:
    with _next_time(run_id=str(settled.run_id)):
        async with asyncio.timeout(_TELL_S):
            await tell_end(resources.log, settled)


async def _promote(resources: Resources, workspace_id: UUID, conversation_id: UUID) -> None:
    async with workspace_transaction(resources.pool, workspace_id, lock_timeout_s=_LOCK_S) as connection:
        if await lock_conversation(connection, conversation_id) is not None:
            await promote_waiting(connection, conversation_id)
            await failpoint("promote.before_commit")
    await failpoint("promote.after_commit")


@contextmanager
def _next_time(**what: str) -> Iterator[None]:
    """One run that is locked, or cannot be ended, must not keep the others from being swept: it comes up again."""
    try:
        yield
    except (*DATABASE_DOWN, *REDIS_DOWN) as error:
        _log.info("sweep_postponed", error=type(error).__name__, **what)
    except Exception:
        _log.exception("sweep_could_not_end", **what)
