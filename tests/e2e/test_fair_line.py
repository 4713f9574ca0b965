"""One workspace's long line beside what others ask for, with real processes."""

import asyncio
from collections.abc import Sequence
from statistics import quantiles
from typing import Any
from uuid import UUID

import pytest

from tests.support.system import Client, System, running_system

OTHERS, AT_ONCE, PLACES, LONG = 9, 3, 20, 1000
_MEASURED_S = 20


@pytest.mark.slow
async def test_line_of_1000_runs_at_most_doubles_the_wait_of_nine_others() -> None:
    """Nine workspaces keep two workers busy; a tenth one queues 1,000 runs, and the p95 of the nine's waits is at most
    twice of what it was. The long line goes on as well."""
    async with running_system(forked=True) as system:
        api = await system.api()
        for _ in range(2):
            await system.worker(WORKER_MAX_RUNS=str(PLACES // 2))
        others = [await system.client(api) for _ in range(OTHERS)]
        begun, enough = list[UUID](), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for other in others * AT_ONCE:
                group.create_task(_ask_on_and_on(other, begun, enough))
            await _measured(system, begun)
            alone = await _measured(system, begun)
            long_one = await system.client(api)
            await _queue_many(long_one)
            before = await _queued(system, long_one)
            beside = await _measured(system, begun)
            after = await _queued(system, long_one)
            enough.set()
        assert LONG * 0.8 < after < before
        assert quantiles(beside, n=20)[-1] <= 2 * quantiles(alone, n=20)[-1]


def _work(number: int) -> dict[str, Any]:
    """Runs take from one to four seconds."""
    return {"provider": "echo", "model": f"echo?delayMs={300 + number * 7 % 20 * 30}"}


async def _ask_on_and_on(client: Client, begun: list[UUID], enough: asyncio.Event) -> None:
    while not enough.is_set():
        run = await client.start("hello", **_work(len(begun)))
        begun.append(UUID(run["id"]))
        await client.events(run, 120)


async def _queue_many(client: Client) -> None:
    numbers = iter(range(LONG))

    async def post() -> None:
        for number in numbers:
            await client.start("hello", **_work(number))

    await asyncio.gather(*(post() for _ in range(8)))


async def _measured(system: System, begun: list[UUID]) -> Sequence[float]:
    """The waits of what is begun from now on, in seconds; of what is not claimed in the end, so far."""
    already = len(begun)
    await asyncio.sleep(_MEASURED_S)
    rows = await system.rows(
        "select extract(epoch from coalesce(claimed_at, clock_timestamp()) - available_at)::float8 from runs"
        " where id = any($1)",
        begun[already:],
    )
    return [row[0] for row in rows]


async def _queued(system: System, client: Client) -> int:
    [row] = await system.rows(
        "select count(*) from runs where workspace_id = $1 and state = 'queued'", client.workspace_id
    )
    return int(row[0])
