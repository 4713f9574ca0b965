"""What a worker process holds, without the process: its resources, its claims, its death."""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from common.config import Settings
from common.eventlog.log import EventLog
from common.limits import LimitBook
from common.model.events import Event, decode_event
from common.queue import Bell
from common.store.database import Pool, workspace_transaction
from common.store.run_schedule import claim_runs, sweep_expired
from tests.support.seed import Seeded
from worker.providers.base import Provider
from worker.run.execution import Execution
from worker.run.lease import Lease, LeaseKeeper
from worker.run.resources import Resources
from worker.run.retry_budget import open_budgets
from worker.tools.base import Tool

OWNER = "this worker"


def worker_resources(
    settings: Settings,
    pool: Pool,
    redis: Redis,
    provider: Provider | None = None,
    tools: Mapping[str, Tool] | None = None,
) -> Resources:
    """What the runs of one worker share; its only provider is `provider`, under the name `scripted`."""
    return Resources(
        settings=settings,
        owner=OWNER,
        pool=pool,
        redis=redis,
        log=EventLog(redis, settings.stream_ttl_s),
        bell=Bell(redis),
        keeper=LeaseKeeper(pool, OWNER, settings, pool),
        providers={} if provider is None else {"scripted": provider},
        retry_budgets=open_budgets(settings, ["scripted"]),
        tools=tools or {},
        limits=LimitBook(settings, pool),
    )


async def claim_lease(pool: Pool, lease_s: float) -> Lease:
    """The lease of the one run that is due."""
    claimed_at = time.monotonic()
    [claim] = await claim_runs(pool, OWNER, lease_s, 10)
    return Lease(claim, claimed_at, lease_s)


async def claim_execution(resources: Resources) -> Execution:
    """An attempt at the one run that is due, not begun yet."""
    return Execution(resources, await claim_lease(resources.pool, resources.settings.lease_s))


async def crash(pool: Pool, seeded: Seeded) -> None:
    """The run's lease runs out and a sweep puts it back, due at once."""
    await expire_lease(pool, seeded)
    await sweep_expired(pool, answering_s=0)
    await write(pool, seeded, "update runs set available_at = clock_timestamp() where id = $1", seeded.run.id)


async def expire_lease(pool: Pool, seeded: Seeded) -> None:
    """As if the run's worker had been silent for too long."""
    statement = "update runs set lease_until = clock_timestamp() - interval '1 s' where id = $1"
    await write(pool, seeded, statement, seeded.run.id)


async def write(pool: Pool, seeded: Seeded, statement: str, *arguments: Any) -> None:
    """A statement in the run's workspace."""
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        await connection.execute(statement, *arguments)


async def read(pool: Pool, seeded: Seeded, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query in the run's workspace."""
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        return [tuple(row) for row in await connection.fetch(query)]


async def read_one(pool: Pool, seeded: Seeded, columns: str) -> tuple[Any, ...]:
    """These columns of the run's row."""
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        return tuple(await connection.fetchrow(f"select {columns} from runs where id = $1", seeded.run.id) or ())


async def told(log: EventLog, run_id: UUID) -> list[Event]:
    """All that the log holds of the run."""
    return [decode_event(event.data) for event in await log.read_after(run_id, None, 1000)]
