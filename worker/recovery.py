"""What a worker does every second, bell or no bell: due runs, expired leases, missed ends and promotions."""

import asyncio
import random
import time
from uuid import UUID

import structlog

from common.eventlog.log import EventLog
from common.model.run_state import RunErrorCode
from common.redis import REDIS_DOWN
from common.settle import CancelledBy, Failed, RunOutcome, Settled, settle
from common.store.conversations import lock_conversation
from common.store.database import DATABASE_DOWN, workspace_transaction
from common.store.run_schedule import find_cancelled, find_promotable, sweep_expired
from common.store.runs import promote_waiting
from worker.job import RunningRuns
from worker.run.resources import Resources

_log = structlog.get_logger(__name__)
_CRASH_LOOP = "the run crashed its worker again and again"


async def recover(resources: Resources, runs: RunningRuns) -> None:
    """Sweeps until cancelled.

    Leases are swept only after this worker's own queries have succeeded for a whole lease: after a pause of Postgres
    every lease looks expired, and their owners must have the time to renew them first.
    """
    healthy_since = time.monotonic()
    while True:
        try:
            await runs.claim_due()
            if time.monotonic() - healthy_since > resources.settings.lease_s:
                await _sweep(resources)
        except DATABASE_DOWN as error:
            _log.warning("sweep_failed", error=type(error).__name__)
            healthy_since = time.monotonic()
        await asyncio.sleep(resources.settings.sweep_s * random.uniform(0.8, 1.2))  # noqa: S311


async def _sweep(resources: Resources) -> None:
    for workspace_id, run_id, attempt, verdict in await sweep_expired(resources.pool):
        _log.warning("lease_expired", run_id=str(run_id), attempt=attempt, verdict=verdict)
        if verdict == "crash_loop":
            outcome: RunOutcome = Failed(RunErrorCode.CRASH_LOOP, _CRASH_LOOP, retryable=False)
        elif verdict == "cancelled":
            outcome = CancelledBy()
        else:
            continue
        await _end(resources, workspace_id, run_id, attempt, outcome)
    for workspace_id, run_id, attempt in await find_cancelled(resources.pool):
        await _end(resources, workspace_id, run_id, attempt, CancelledBy())
    for workspace_id, conversation_id in await find_promotable(resources.pool):
        async with workspace_transaction(resources.pool, workspace_id) as connection:
            if await lock_conversation(connection, conversation_id) is not None:
                await promote_waiting(connection, conversation_id)


async def _end(resources: Resources, workspace_id: UUID, run_id: UUID, attempt: int, outcome: RunOutcome) -> None:
    try:
        settled = await settle(resources.pool, workspace_id, run_id, outcome, by="sweep", attempt=attempt)
    except DATABASE_DOWN:
        raise
    except Exception:
        # One run that cannot be ended must not keep the others from being swept.
        _log.exception("sweep_could_not_end", run_id=str(run_id))
        return
    if settled is not None:
        await announce(resources.log, settled)


async def announce(log: EventLog, settled: Settled) -> None:
    """Tells the log of an end that was not its owner's. Without Redis the relays tell it from the database."""
    if settled.started is None:
        return
    try:
        await log.end(settled.run_id, settled.event_id.attempt, settled.started, settled.terminal)
    except REDIS_DOWN as error:
        _log.info("end_not_announced", run_id=str(settled.run_id), error=type(error).__name__)
