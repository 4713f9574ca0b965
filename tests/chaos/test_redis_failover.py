"""Redis' master dies under runs and streams, and sentinels put its replica in its place."""

import asyncio
import tempfile
from pathlib import Path

from tests.support.chaos import Chaos
from tests.support.eventually import eventually
from tests.support.lanes import Lanes
from tests.support.planned_model import plan
from tests.support.replicated_valkey import ReplicatedValkey, replicated_valkey
from tests.support.system import System, running_system


async def test_runs_outlive_a_failover_of_redis(chaos: Chaos) -> None:
    """The master is killed: runs and streams go on with its replica, and what that did not have is told again."""
    with tempfile.TemporaryDirectory(prefix="throughline-replicated-") as folder:
        async with running_system(forked=True) as system, replicated_valkey(Path(folder)) as valkey:
            await _fail_over(chaos, system, valkey)


async def _fail_over(chaos: Chaos, system: System, valkey: ReplicatedValkey) -> None:
    urls = {"REDIS_URL": valkey.url, "QUEUE_REDIS_URL": valkey.url}
    apis = await asyncio.gather(*(system.api(**urls) for _ in range(chaos.pick(1, 2))))
    await asyncio.gather(*(system.worker(**urls, **chaos.steady) for _ in range(chaos.pick(1, 2))))
    clients = [await system.client(api) for api in apis]

    def model() -> str:
        return plan(steps=2, tools=chaos.random.choice(("look", "charge,store")), words=30, pause_ms=15)

    async with Lanes(clients, chaos.pick(8, 40), model) as lanes:
        for _ in range(chaos.pick(1, 6)):
            if not await valkey.is_replicated():
                await valkey.restart_killed()
            await lanes.go_on(chaos.random.uniform(0.5, chaos.pick(1.0, 3.0)))
            await _kill_master(chaos, valkey, lanes)
    await lanes.check(chaos, system)


async def _kill_master(chaos: Chaos, valkey: ReplicatedValkey, lanes: Lanes) -> None:
    """Returns once runs that were posted afterwards have ended."""
    loop = asyncio.get_running_loop()
    under_way = [watcher for watcher in lanes.watchers if watcher.end is None]
    assert under_way, "no fault met a run"
    killed = await valkey.kill_master()
    began_at, posted = loop.time(), len(lanes.watchers)
    chaos.fault(f"master {killed} killed under {len(under_way)} runs")

    async def has_successor() -> bool:
        return await valkey.master() not in (None, killed)

    await eventually(has_successor, 30, 0.1)
    chaos.fault(f"succeeded by {await valkey.master()} after {loop.time() - began_at:.2f} s")
    await eventually(lambda: any(watcher.end for watcher in lanes.watchers[posted:]), 30, 0.1)
    chaos.figure("from a master's death to the end of a run posted after it", loop.time() - began_at, 15, "s")
