"""Workers are told to leave (SIGTERM), one after the other, while runs with tools go on."""

import asyncio
import signal
import time
from functools import partial
from typing import NamedTuple

import pytest

from tests.support.audit import audit, audit_watchers, check_whole
from tests.support.chaos import Chaos, percentile
from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.planned_model import plan
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

_NOTE_HAND_BACKS = (
    "create table handed_back (run_id uuid, attempt bigint, at timestamptz default clock_timestamp())",
    """
    create function note_hand_back() returns trigger language plpgsql security definer as $$
    begin
        insert into public.handed_back values (new.id, new.attempt);
        return null;
    end
    $$
    """,
    """
    create trigger note_hand_back after update on runs
        for each row when (old.state = 'running' and new.state = 'queued') execute function note_hand_back()
    """,
)


async def test_clients_do_not_notice_a_rolling_restart(chaos: Chaos) -> None:
    """Each of three workers is replaced and leaves in good order: no client sees an error, no run waits over 2 s."""
    async with running_system(forked=True) as system:
        for statement in _NOTE_HAND_BACKS:
            await system.rows(statement)
        client = await system.client(await system.api())
        fleet = Fleet(system, PROBE_SECONDS="0.2")
        await fleet.grow(chaos.pick(2, 3))
        model = plan(steps=chaos.pick(15, 40), tools="store,charge", words=10, pause_ms=50)
        watchers = [await _watch(client, model) for _ in range(chaos.pick(12, 100))]
        watching = asyncio.gather(*(watcher.watch(300) for watcher in watchers))
        for leaving in list(fleet.workers):
            await fleet.grow(1)
            chaos.fault(f"SIGTERM of worker {leaving.pid}")
            assert await leaving.stop() == 0, leaving.output()
        await watching
        takeovers = _takeovers(await _hand_backs(system), watchers)
        chaos.figure("runs", len(watchers))
        chaos.figure("runs handed back", len(takeovers))
        assert takeovers, "no worker had anything to hand back"
        chaos.figure("taken over after, p50", percentile(takeovers, 0.5), None, "s")
        chaos.figure("taken over after, at most", max(takeovers), 2, "s")
        discarded = sum(event["type"] == "discarded" for watcher in watchers for event in watcher.events)
        chaos.figure("steps that were cut", discarded, 0)
        chaos.figure("streams that broke", sum(watcher.connections - 1 for watcher in watchers), 0)
        chaos.figure("crashes counted", (await system.rows("select sum(crashes_total) from runs"))[0][0], 0)
        await check_whole(chaos, system, watchers)


async def test_tool_that_outlasts_the_grace_is_cut(chaos: Chaos) -> None:
    """Its run is handed back all the same, not as a crash; what must not happen twice is told as unknown."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        leaving = await system.worker(PROBE_SECONDS="20", WORKER_DRAIN_S="1")
        watcher = await _watch(client, plan(steps=1, tools="store,charge", words=2))
        await eventually(partial(_is_in_tools, system, 2), 20)
        leaving.child.send(signal.SIGTERM)
        chaos.fault("SIGTERM")
        assert await leaving.stop(signal.SIGTERM) == 0, "asked twice, it leaves in good order all the same"
        await system.worker()
        await watcher.watch(30)
        results = {event["name"]: event["outcome"] for event in watcher.events if event["type"] == "tool_result"}
        assert results == {"store": "ok", "charge": "unknown"}
        (row,) = await system.rows("select crashes_total, attempt from runs")
        assert tuple(row) == (0, 2)
        problems = [*await audit(system), *await audit_watchers(system, [watcher])]
        assert not problems, problems


@pytest.mark.slow
async def test_worker_that_is_killed_while_it_leaves_loses_nothing(chaos: Chaos) -> None:
    """What it had handed back goes on at once, what it had not after its lease."""
    async with running_system(forked=True) as system:
        client = await system.client(await system.api())
        leases = {} if chaos.full else {"LEASE_S": "4", "HEARTBEAT_S": "1"}
        leaving = await system.worker(PROBE_SECONDS="20", **leases)
        in_tool = await _watch(client, plan(steps=1, tools="look", words=2))
        await eventually(partial(_is_in_tools, system, 1), 20)
        in_stream = await _watch(client, plan(steps=20, tools="no_such_tool", words=10, pause_ms=50))
        await client.state_is(in_stream.run, "running")
        leaving.child.send(signal.SIGTERM)
        chaos.fault("SIGTERM")
        await client.state_is(in_stream.run, "queued")
        await leaving.stop(signal.SIGKILL)
        chaos.fault("SIGKILL")
        await system.worker(**leases)
        await asyncio.gather(in_tool.watch(40), in_stream.watch(40))
        crashes = {str(row[0]): row[1] for row in await system.rows("select id, crashes_total from runs")}
        assert crashes == {in_tool.run["id"]: 1, in_stream.run["id"]: 0}
        problems = [*await audit(system), *await audit_watchers(system, [in_tool, in_stream])]
        assert not problems, problems


class _HandBack(NamedTuple):
    run_id: str
    attempt: int
    at: float


async def _watch(client: Client, model: str) -> Watcher:
    return Watcher([client], await client.start("go", provider="anthropic", model=model))


async def _is_in_tools(system: System, calls: int) -> bool:
    return len(await system.rows("select 1 from tool_calls where state = 'started'")) == calls


async def _hand_backs(system: System) -> list[_HandBack]:
    """Which run was handed back in which attempt, and when (monotonic seconds)."""
    rows = await system.rows("select run_id, attempt, extract(epoch from at)::float8 as at from handed_back")
    since_epoch = time.time() - time.monotonic()
    return [_HandBack(str(row["run_id"]), row["attempt"], row["at"] - since_epoch) for row in rows]


def _takeovers(hand_backs: list[_HandBack], watchers: list[Watcher]) -> list[float]:
    """For each of them the seconds until its client saw the next attempt."""
    of_run = {watcher.run["id"]: watcher for watcher in watchers}
    return [
        min(seen.at for seen in of_run[one.run_id].seen if seen.frame.event.get("attempt") == one.attempt + 1) - one.at
        for one in hand_backs
    ]
