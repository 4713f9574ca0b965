"""A random worker gets `kill -9` again and again while runs with tools go on."""

import asyncio

from tests.support.audit import check_whole, doubled_effects
from tests.support.chaos import Chaos, percentile
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, recovery_seconds
from tests.support.planned_model import plan
from tests.support.system import Client, running_system
from tests.support.watcher import Watcher


async def test_runs_outlive_their_workers(chaos: Chaos) -> None:
    """A random worker is killed every 3 s: no run is lost or fails, no effect doubled, each client's story is whole."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        fleet = Fleet(system, PROBE_SECONDS=chaos.pick("0.3", "0.5"), **chaos.leases)
        await fleet.grow(chaos.pick(2, 4))
        watching = asyncio.ensure_future(_start_and_watch(chaos, client, chaos.pick(12, 500)))
        while not watching.done() and (chaos.full or len(fleet.orphans) <= 10):
            await asyncio.wait({watching}, timeout=chaos.pick(1.5, 3.0))
            if watching.done():
                break
            worker = chaos.random.choice(fleet.workers)
            orphans = await fleet.kill(worker)
            chaos.fault(f"kill -9 of worker {worker.pid}, which had {len(orphans)} runs")
            await fleet.grow(1)
        watchers = await watching
        chaos.figure("runs", len(watchers))
        chaos.figure("times that a run lost its worker", len(fleet.orphans))
        chaos.figure("at-most-once effects doubled", doubled_effects(system, "charge"), 0)
        seconds = recovery_seconds(fleet.orphans, watchers)
        assert seconds, "no run lost its worker"
        chaos.figure("back to work, p50", percentile(seconds, 0.5), None, "s")
        chaos.figure("back to work, p99", percentile(seconds, 0.99), 15, "s")
        await check_whole(chaos, system, watchers)


async def test_the_only_worker_is_replaced(chaos: Chaos) -> None:
    """The only worker is killed and a new one started at once: all its runs are back to work within 15 s."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        fleet = Fleet(system, **chaos.leases)
        await fleet.grow(1)
        model = plan(steps=2, tools="look", words=20, pause_ms=100)
        runs = [await client.start("go", provider="anthropic", model=model) for _ in range(chaos.pick(5, 50))]
        watchers = [Watcher([client], run) for run in runs]
        watching = asyncio.gather(*(watcher.watch(120) for watcher in watchers))
        await eventually(lambda: all(len(watcher.seen) > 1 for watcher in watchers), 20)
        orphans = await fleet.kill(fleet.workers[0])
        chaos.fault(f"kill -9 of the worker, which had {len(orphans)} runs")
        await fleet.grow(1)
        chaos.fault("another one is ready")
        await watching
        assert len(orphans) == len(watchers)
        chaos.figure("back to work, at most", max(recovery_seconds(orphans, watchers)), 15, "s")
        await check_whole(chaos, system, watchers)


async def _start_and_watch(chaos: Chaos, client: Client, count: int) -> list[Watcher]:
    """Returns once all runs have ended for their clients; the first ones are watched while others still start."""
    tools = [chaos.random.choice(("look", "store,charge", "charge")) for _ in range(count)]
    starting = asyncio.Semaphore(10)

    async def start_and_watch(tools: str) -> Watcher:
        model = plan(steps=3, tools=tools, words=chaos.pick(2, 5), pause_ms=chaos.pick(20, 300))
        async with starting:
            run = await client.start("go", provider="anthropic", model=model)
        return await Watcher([client], run).watch(chaos.pick(60, 500))

    return await asyncio.gather(*(start_and_watch(one) for one in tools))
