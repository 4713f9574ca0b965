"""A random worker gets `kill -9` again and again while runs with tools go on."""

import asyncio

from tests.support.audit import audit, audit_watchers, doubled_effects
from tests.support.chaos import Chaos, percentile
from tests.support.fleet import Fleet, recovery_seconds
from tests.support.planned_model import plan
from tests.support.system import Client, running_system
from tests.support.watcher import Watcher


async def test_runs_outlive_their_workers(chaos: Chaos) -> None:
    """A random worker is killed every 3 s: no run is lost or fails, no effect doubled, each client's story is whole."""
    async with running_system(durable=True) as system:
        client = await system.client(await system.api())
        fleet = Fleet(system, PROBE_SECONDS="0.5", **chaos.leases)
        await fleet.grow(chaos.pick(2, 4))
        watchers = await _start(chaos, client, chaos.pick(12, 500))
        watching = asyncio.gather(*(watcher.watch(chaos.pick(60, 300)) for watcher in watchers))
        while not watching.done():
            await asyncio.wait({watching}, timeout=chaos.pick(1.5, 3.0))
            if watching.done() or len(fleet.orphans) > chaos.pick(10, 100_000):
                break
            worker = chaos.random.choice(fleet.workers)
            orphans = await fleet.kill(worker)
            chaos.fault(f"kill -9 of worker {worker.pid}, which had {len(orphans)} runs")
            await fleet.grow(1)
        await watching
        chaos.figure("runs", len(watchers))
        chaos.figure("runs that lost their worker", len(fleet.orphans))
        chaos.figure("runs that failed", sum((watcher.end or {})["type"] != "done" for watcher in watchers), 0)
        chaos.figure("at-most-once effects doubled", doubled_effects(system, "charge"), 0)
        seconds = recovery_seconds(fleet.orphans, watchers)
        for share in (0.5, 0.99):
            limit = 15 if share == 0.99 else None
            chaos.figure(f"back to work, p{share * 100:g}", percentile(seconds, share), limit, "s")
        problems = [*await audit(system), *await audit_watchers(system, watchers)]
        assert not problems, problems[:10]


async def _start(chaos: Chaos, client: Client, count: int) -> list[Watcher]:
    tools = ("look", "store,charge", "charge")
    runs = []
    for _ in range(count):
        model = plan(steps=2, tools=chaos.random.choice(tools), words=15, pause_ms=20)
        runs.append(await client.start("go", provider="anthropic", model=model))
    return [Watcher([client], run) for run in runs]
