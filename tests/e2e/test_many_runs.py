"""Hundreds of runs in one worker."""

import asyncio

import asyncpg
import pytest

from tests.support.eventually import eventually
from tests.support.system import running_system

MANY = 300


@pytest.mark.slow
async def test_worker_with_300_runs_takes_another_at_once() -> None:
    """300 runs stream in one worker; one more is picked up, streamed and finished while all of them go on."""
    async with running_system() as system:
        client = await system.client(await system.api())
        await system.worker()
        slow = {"provider": "echo", "model": "echo?delayMs=1000&repeat=100"}
        runs = await asyncio.gather(*(client.start("long", **slow) for _ in range(MANY)))
        connection = await asyncpg.connect(system.environment()["MIGRATION_DATABASE_URL"])
        try:

            async def running() -> int:
                return int(await connection.fetchval("select count(*) from runs where state = 'running'"))

            async def all_running() -> bool:
                return await running() == MANY

            await eventually(all_running, 60)
            streams = [await client.stream(run) for run in runs]
            await asyncio.gather(*(stream.read_until(b'"type":"token"', 30) for stream in streams))
            one_more = await client.start("and me")
            assert (await client.events(one_more))[-1]["type"] == "done"
            assert await running() == MANY
        finally:
            await connection.close()
        for stream in streams:
            stream.close()
