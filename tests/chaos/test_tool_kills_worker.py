"""A tool kills its worker, or blocks its event loop, each time that it is called."""

import asyncio

from tests.support.audit import audit, audit_watchers
from tests.support.chaos import Chaos
from tests.support.fleet import Fleet
from tests.support.planned_model import plan
from tests.support.system import Client, running_system
from tests.support.watcher import Watcher

_STATUS = {"die": -9, "freeze": 70}
"""How a worker ends of each tool: by the signal, and by its own watchdog."""


async def test_neighbours_of_a_killing_tool_finish(chaos: Chaos) -> None:
    """A run that kills its worker fails with crash_loop after 3; its neighbours, inside tools of their own, finish."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        fleet = Fleet(system, PROBE_SECONDS=chaos.pick("0.5", "1"), **chaos.leases)
        await fleet.grow(1)
        everybody: list[Watcher] = []
        for tool in chaos.pick(("die",), ("die", "freeze")):
            models = (plan(steps=2, tools="look", words=5), plan(steps=1, tools="store", words=5))
            neighbours = [await _watch(client, models[number % 2]) for number in range(chaos.pick(8, 40))]
            killer = await _watch(client, plan(steps=1, tools=tool, words=5))
            everybody += [killer, *neighbours]
            deaths = await _replace_the_dead(chaos, fleet, everybody)
            chaos.figure(f"neighbours of {tool}", len(neighbours))
            chaos.figure(f"neighbours of {tool} that failed", sum(not one.completed for one in neighbours), 0)
            chaos.figure(f"workers that died of {tool}", len(deaths), 3)
            assert set(deaths) == {_STATUS[tool]}
            assert len(deaths) == 3 or not chaos.full, "a short lease that lapses on a busy machine is a crash as well"
            assert (killer.end or {})["error"]["code"] == "crash_loop"
        problems = [*await audit(system), *await audit_watchers(system, everybody)]
        assert not problems, problems[:10]


async def _watch(client: Client, model: str) -> Watcher:
    return Watcher([client], await client.start("go", provider="anthropic", model=model))


async def _replace_the_dead(chaos: Chaos, fleet: Fleet, watchers: list[Watcher]) -> list[int]:
    """Keeps one worker alive until all have seen their ends; the exit statuses of those that died."""
    deaths: list[int] = []
    watching = asyncio.gather(*(watcher.watch(chaos.pick(60, 240)) for watcher in watchers))
    while not watching.done():
        await asyncio.wait({watching}, timeout=0.1)
        if (status := fleet.workers[0].child.returncode) is not None:
            deaths.append(status)
            chaos.fault(f"worker {fleet.workers.pop().pid} has ended with {status}")
            await fleet.grow(1)
    await watching
    return deaths
