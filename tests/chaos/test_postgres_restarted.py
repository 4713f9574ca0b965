"""Postgres is restarted at once, or gone for a while, under a stream of messages and running runs."""

import asyncio
import signal
from contextlib import AbstractAsyncContextManager

from tests.support.at_work import at_work
from tests.support.chaos import Chaos
from tests.support.system import System, running_system


async def test_restarts_lose_nothing(chaos: Chaos) -> None:
    """Postgres is restarted at once, again and again: acknowledged messages are kept, others get 503; no run fails."""
    async with _running_system(chaos) as system, at_work(chaos, system, chaos.pick(100, 1000)) as work:
        for _ in range(chaos.pick(2, 5)):
            await asyncio.sleep(chaos.random.uniform(0.3, chaos.pick(0.8, 4.0)))
            chaos.fault("Postgres is killed and restarted")
            await _kill_postgres(system)
            await system.servers.embedded.postgres.start()
            await work.heals()


async def test_absence_loses_nothing(chaos: Chaos) -> None:
    """Postgres is gone for 30 s: 503 meanwhile, not ready, and afterwards all goes on by itself; no run fails."""
    async with _running_system(chaos) as system, at_work(chaos, system, chaos.pick(50, 1000)) as work:
        chaos.fault("Postgres is killed")
        await _kill_postgres(system)
        await asyncio.sleep(chaos.pick(3, 30))
        assert await work.readiness() == (503, "unavailable")
        await system.servers.embedded.postgres.start()
        chaos.fault("Postgres is back")
        await work.heals()
        assert await work.readiness() == (200, "ok")


def _running_system(chaos: Chaos) -> AbstractAsyncContextManager[System]:
    """One that survives a crash of Postgres; the full scale has processes that share nothing."""
    return running_system(durable=True, forked=not chaos.full)


async def _kill_postgres(system: System) -> None:
    """An immediate shutdown: as after a crash, its next start recovers from the log."""
    child = system.servers.embedded.postgres.child
    assert child is not None
    child.send(signal.SIGQUIT)
    await child.wait(10)
