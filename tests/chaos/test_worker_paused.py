"""A worker is stopped (SIGSTOP) until its runs are somebody else's, then goes on: a zombie."""

import asyncio
import signal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from common.eventlog.keys import events_key
from tests.support.audit import audit, audit_watchers
from tests.support.chaos import QUICK, Chaos
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint
from tests.support.planned_model import plan
from tests.support.processes import RunningProcess
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

POINTS = (
    "model_call.after_commit",
    "step.before_commit",
    "step.after_commit",
    "call.before_commit",
    "call.after_commit",
    "tool.before_effect",
    "result.before_commit",
    "end.before_commit",
)
"""In the order in which a run passes them, so that each run is held at a place of its own."""

BLOCKED = 70
"""A worker's exit status when its watchdog finds the event loop stuck past a lease."""


@pytest.mark.slow
async def test_zombies_write_nothing(chaos: Chaos) -> None:
    """Workers that wake after their leases, wherever their runs stood, cancelled or not, leave no row and no event."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        each = chaos.pick(1, 2)
        lapsed = {**chaos.leases, "PROBE_SECONDS": "0.5", "DATABASE_POOL_SIZE": "30"}
        # These believe that their leases hold: nothing but the fences of both stores keeps them from writing.
        sure = {**lapsed, "LEASE_S": "300", "HEARTBEAT_S": "3", "WORKER_MAX_RUNS": f"{len(POINTS) + 2}"}
        zombies, watchers = [], []
        for times, settings in ((each, sure), (2 * each, lapsed)):  # the first ones are full when the others come
            held = [Failpoint(name, "block", times=times) for name in POINTS]
            zombies += await asyncio.gather(*(system.worker(*held, **settings) for _ in range(each)))
            watchers += await _hold_runs_everywhere(system, client, each)
        watching = asyncio.gather(*(watcher.watch(chaos.pick(60, 120)) for watcher in watchers))
        for zombie in zombies:
            zombie.child.send(signal.SIGSTOP)
            chaos.fault(f"SIGSTOP of worker {zombie.pid}")
        rows = await system.rows("select id, attempt, lease_owner from runs where state = 'running'")
        old, owners = {row["id"]: row["attempt"] for row in rows}, [row["lease_owner"] for row in rows]
        assert len(old) >= len(POINTS) * each, "Postgres ends those within transactions, and no others"
        if not chaos.full:
            await eventually(lambda: _cut_idle_transactions(system))  # else Postgres does it, after some seconds
        await asyncio.gather(*(system.expire_leases(zombie) for zombie in zombies[:each]))
        to_cancel = chaos.random.sample(watchers, len(watchers) // 2)
        heir = (await asyncio.gather(system.worker(**chaos.leases), _cancel(client, to_cancel)))[0]

        await eventually(lambda: _taken_over(system, old), 60)
        told = await _told_by(system, old)
        early, late = zombies[:each], zombies[each:]
        for name in POINTS:
            system.failpoints.let_go(name)
        await _wake(chaos, early, owners)
        await watching
        before = await _everything(system, old)
        await _wake(chaos, late, owners)
        assert await _everything(system, old) == before
        assert await _told_by(system, old) == told
        problems = [*await audit(system), *await audit_watchers(system, watchers)]
        assert not problems, problems[:10]

        chaos.figure("runs taken over", len(old))
        chaos.figure("zombies", len(zombies))
        chaos.figure("zombies that ended themselves", sum(zombie.child.returncode == BLOCKED for zombie in zombies))
        await heir.stop()
        assert (await client.events(await client.start("to a zombie")))[-1]["type"] == "done"


async def test_zombie_commits_nothing(chaos: Chaos) -> None:
    """A worker that wakes in the middle of a step's transaction, sure of its lease, commits no step over its heir's."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        zombie = await system.worker(Failpoint("step.before_commit", "block"), LEASE_S="300")
        run = await client.start("go", provider="anthropic", model=plan(words=20, pause_ms=100))
        watcher = Watcher([client], run)
        watching = asyncio.create_task(watcher.watch(60))
        await system.failpoints.wait_until_fired("step.before_commit")
        zombie.child.send(signal.SIGSTOP)
        chaos.fault("SIGSTOP")
        rows = await system.rows("select id, attempt, lease_owner from runs")
        await eventually(partial(_cut_idle_transactions, system))
        await system.expire_leases(zombie)
        await system.worker(**QUICK)
        await eventually(partial(_taken_over, system, {row["id"]: row["attempt"] for row in rows}), 60)
        system.failpoints.let_go("step.before_commit")
        await _wake(chaos, [zombie], [row["lease_owner"] for row in rows])
        await watching
        problems = [*await audit(system), *await audit_watchers(system, [watcher])]
        assert not problems, problems


async def _hold_runs_everywhere(system: System, client: Client, each: int) -> list[Watcher]:
    """So many runs at each point, amid their tokens and inside a tool; whoever watches them."""
    held = plan(steps=1, tools="charge", words=5, pause_ms=20)
    runs = []
    for _ in range(len(POINTS) * each):
        fired = _held(system)
        runs.append(await client.start("go", provider="anthropic", model=held))
        await eventually(partial(_is_held_or_over, system, client, runs[-1], fired), 20)
    for _ in range(each):
        slow = await client.start("go", provider="anthropic", model=plan(words=40, pause_ms=50))
        in_tool = await client.start("go", provider="anthropic", model=plan(steps=1, tools="store,charge", words=5))
        stream = await client.stream(slow)
        await stream.read_until(b'"type":"token"')
        stream.close()
        query = "select 1 from tool_calls where run_id = $1::uuid and state <> 'pending'"
        await eventually(partial(system.rows, query, in_tool["id"]), 20)
        runs += [slow, in_tool]
    return [Watcher([client], run) for run in runs]


def _held(system: System) -> int:
    return sum(system.failpoints.fired(name) for name in POINTS)


async def _is_held_or_over(system: System, client: Client, run: dict[str, Any], fired: int) -> bool:
    """A run is held at the first point that is still free; over are those that a worker took which holds no more."""
    return _held(system) > fired or (await client.run(run))["state"] == "completed"


async def _cut_idle_transactions(system: System) -> bool:
    """Cuts those that have been idle for a while; whether none is left."""
    await system.rows(
        """
        select pg_terminate_backend(pid) from pg_stat_activity
        where state = 'idle in transaction' and state_change < clock_timestamp() - interval '0.3 seconds'
        """
    )
    return not await system.rows("select 1 from pg_stat_activity where state = 'idle in transaction'")


async def _cancel(client: Client, watchers: list[Watcher]) -> None:
    """Asks for the ends of these runs, which nobody is awake to carry out."""
    await asyncio.gather(*(client.http.post(f"/v1/runs/{watcher.run['id']}/cancel") for watcher in watchers))


async def _taken_over(system: System, old: dict[UUID, int]) -> bool:
    rows = await system.rows("select id, attempt from runs where id = any ($1)", list(old))
    return all(row["attempt"] > old[row["id"]] for row in rows)


async def _wake(chaos: Chaos, zombies: list[RunningProcess], owners: list[str]) -> None:
    """Returns once each has found out that all its runs are lost, or has ended itself."""
    for zombie in zombies:
        zombie.child.send(signal.SIGCONT)
        chaos.fault(f"SIGCONT of worker {zombie.pid}")
    for zombie in zombies:
        had = sum(f":{zombie.pid}:" in owner for owner in owners)
        await eventually(partial(_has_lost, zombie, had), 30)


def _has_lost(zombie: RunningProcess, runs: int) -> bool:
    return zombie.child.returncode == BLOCKED or zombie.output().count("lease_lost") >= runs


async def _told_by(system: System, old: dict[UUID, int]) -> dict[UUID, list[Any]]:
    """The events of the old attempts."""
    async with Redis.from_url(system.servers.redis_url, decode_responses=True) as redis:
        return {
            run_id: await redis.xrange(events_key(run_id), "-", f"{attempt}-{2**63}") for run_id, attempt in old.items()
        }


async def _everything(system: System, old: dict[UUID, int]) -> list[Any]:
    """All that the stores hold of the runs."""
    tables = [
        [tuple(row) for row in await system.rows(f"select * from {table} order by 1, 2")]
        for table in ("runs", "messages", "model_calls", "tool_calls")
    ]
    async with Redis.from_url(system.servers.redis_url, decode_responses=True) as redis:
        return [*tables, *[await redis.xrange(events_key(run_id)) for run_id in old]]
