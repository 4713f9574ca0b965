"""Runs are cancelled at random moments of their lives, while workers, an API or Redis go away."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import httpx
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from common.eventlog.keys import events_key
from tests.support.audit import audit, audit_watchers
from tests.support.chaos import Chaos, percentile
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint
from tests.support.fleet import Fleet
from tests.support.stages import STAGES, WatchedRun, amid_tokens, in_tool
from tests.support.system import TERMINAL, Client, System, running_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TOOL_SECONDS = 0.5


class House(NamedTuple):
    """One person at two APIs, with two workers behind them."""

    system: System
    clients: list[Client]
    fleet: Fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """A system for the whole module: each test leaves it as it was."""
    async with running_system(durable=True, forked=True) as system:
        leases = Chaos("the leases of this scale").leases
        fleet = Fleet(system, PROBE_SECONDS=str(_TOOL_SECONDS), **leases)
        apis = [await system.api(), await system.api()]
        await fleet.grow(2)
        first = await system.client(apis[0])
        yield House(system, [first, await system.client(apis[1], first.workspace_id)], fleet)


async def test_cancelled_runs_end_once(chaos: Chaos, house: House) -> None:
    """Cancels at random moments: one terminal event each, one id everywhere, within 2 s; all is metered and closed."""
    count, at_once = chaos.pick(16, 500), asyncio.Semaphore(chaos.pick(16, 20))
    cancelled: list[_Cancelled] = []

    async def cancel_some(number: int) -> None:
        async with at_once:
            for run in await STAGES[number % len(STAGES)](house.system, house.clients):
                await asyncio.sleep(chaos.random.uniform(0, _TOOL_SECONDS))
                cancelled.append(await _cancel(house, run, chaos.random.randrange(2)))

    await asyncio.gather(*(cancel_some(number) for number in range(count)))
    await eventually(lambda: house.system.models.open_streams == 0, 2)
    states = [(await house.clients[0].run(one.watched.run))["state"] for one in cancelled]
    chaos.figure("runs cancelled", states.count("cancelled"))
    chaos.figure("runs that had completed before", states.count("completed"))
    assert set(states) <= {"cancelled", "completed"}
    for moment in sorted({one.watched.moment for one in cancelled}):
        seconds = [one.seconds for one in cancelled if one.watched.moment == moment]
        chaos.figure(f"end seen by the client, {moment}, p50", percentile(seconds, 0.5), unit="s")
        chaos.figure(f"end seen by the client, {moment}, longest", max(seconds), 2, "s")
    problems = await _audit(house, [one.watched for one in cancelled], told=True)
    for one in cancelled:
        problems += await _partial_text(house, one.watched) + await _closed_calls(house, one.watched)
    assert not problems, problems[:10]


async def test_runs_are_cancelled_while_their_worker_goes(chaos: Chaos, house: House) -> None:
    """A cancel and a `kill -9` or SIGTERM at the same moment: the run ends once, at the latest with its lease."""
    cancelled: list[_Cancelled] = []
    for number in range(chaos.pick(2, 6)):
        runs = await _begin(house, chaos.pick(4, 16))
        cancelling = asyncio.gather(*(_cancel_soon(chaos, house, run) for run in runs))
        await _end_a_worker(chaos, house, signal.SIGTERM if number % 2 else signal.SIGKILL)
        cancelled += await cancelling
        await house.fleet.grow(1)
    chaos.figure("runs cancelled", len(cancelled))
    seconds = [one.seconds for one in cancelled]
    chaos.figure("end seen by the client, p50", percentile(seconds, 0.5), unit="s")
    chaos.figure("end seen by the client, longest", max(seconds), chaos.pick(2, 10) + 5, "s")
    problems = await _audit(house, [one.watched for one in cancelled], told=False)
    assert not problems, problems[:10]


async def test_cancel_whose_api_dies_is_carried_out(chaos: Chaos, house: House) -> None:
    """The API dies between the cancel's commit and its signal: the run ends within the heartbeat all the same."""
    seconds = []
    for _ in range(chaos.pick(1, 5)):
        api = await house.system.api(
            Failpoint("signal.before", "exit", times=house.system.failpoints.fired("signal.before") + 1)
        )
        doomed = await house.system.client(api, house.clients[0].workspace_id)
        [run] = await amid_tokens(house.system, house.clients)
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            await doomed.http.post(f"/v1/runs/{run.id}/cancel")
        chaos.fault("an API died before it could signal")
        await run.seen_to_end()
        assert [(watcher.end or {})["type"] for watcher in run.watchers] == ["cancelled"] * 2
        seconds.append(time.monotonic() - began)
    heartbeat_s = chaos.pick(0.5, 3.0)
    chaos.figure("cancel without a signal, longest", max(seconds), heartbeat_s + 2, "s")


async def test_runs_are_cancelled_without_redis(chaos: Chaos, house: House) -> None:
    """While Redis is down each cancel is carried out within 5 s, and its end is told once Redis is back."""
    runs = await _begin(house, chaos.pick(4, 24))
    await house.system.servers.embedded.valkey.stop()
    chaos.fault("Redis stopped")
    seconds = await asyncio.gather(*(_cancel_unseen(house, run) for run in runs))
    await house.system.servers.embedded.valkey.start()
    chaos.fault("Redis started")
    await asyncio.gather(*(run.seen_to_end() for run in runs))
    chaos.figure("runs cancelled", len(runs))
    chaos.figure("end in Postgres, p50", percentile(seconds, 0.5), unit="s")
    chaos.figure("end in Postgres, longest", max(seconds), 5, "s")
    problems = await _audit(house, runs, told=False)
    assert not problems, problems[:10]


class _Cancelled(NamedTuple):
    watched: WatchedRun
    seconds: float


async def _begin(house: House, count: int) -> list[WatchedRun]:
    """So many runs that have long to go, amid tokens and in tools of each class."""
    stages = (amid_tokens, in_tool("look"), in_tool("store"), in_tool("charge"))
    begun = await asyncio.gather(*(stages[n % len(stages)](house.system, house.clients) for n in range(count)))
    return [run for group in begun for run in group]


async def _end_a_worker(chaos: Chaos, house: House, number: signal.Signals) -> None:
    await asyncio.sleep(chaos.random.uniform(0, 0.05))
    worker = chaos.random.choice(house.fleet.workers)
    chaos.fault(f"{number.name} to worker {worker.pid}")
    await worker.stop(number)
    house.fleet.workers.remove(worker)


async def _cancel_soon(chaos: Chaos, house: House, run: WatchedRun) -> _Cancelled:
    await asyncio.sleep(chaos.random.uniform(0, 0.1))
    return await _cancel(house, run, 0)


async def _cancel(house: House, run: WatchedRun, through: int) -> _Cancelled:
    """Cancels the run twice at once, through one API each; how long it took until both watchers had seen the end."""
    began = time.monotonic()
    first, second = house.clients[through], house.clients[1 - through]
    answers = await asyncio.gather(*(client.http.post(f"/v1/runs/{run.id}/cancel") for client in (first, second)))
    assert {answer.status_code for answer in answers} == {200}
    await run.seen_to_end()
    return _Cancelled(run, max(watcher.seen[-1].at for watcher in run.watchers) - began)


async def _cancel_unseen(house: House, run: WatchedRun) -> float:
    began = time.monotonic()
    answer = await house.clients[0].http.post(f"/v1/runs/{run.id}/cancel")
    assert answer.status_code == 200, answer.text
    await house.clients[0].state_is(run.run, "cancelled", 30)
    return time.monotonic() - began


async def _audit(house: House, runs: Sequence[WatchedRun], *, told: bool) -> list[str]:
    """What is wrong with these runs in Postgres, for those who watched, for those who come late, and in the log."""
    problems = await audit(house.system)
    for place in range(2):
        problems += await audit_watchers(house.system, [run.watchers[place] for run in runs])
    for run in runs:
        ids = {watcher.cursor for watcher in run.watchers}
        late = await house.clients[0].stream(run.run)
        frames = await late.read_to_end()
        ends = [frame for frame in frames if frame.event["type"] in TERMINAL]
        ids |= {end.id for end in ends}
        seen = [event for watcher in run.watchers for event in watcher.events if event["type"] in TERMINAL]
        if len(ends) != 1 or len(seen) != 2 or len(ids) != 1:
            problems.append(f"run {run.id}: its end has the ids {ids}, told {len(seen)} and late {len(ends)} times")
        beyond = await house.clients[1].stream(run.run, after=frames[-1].id)
        if beyond.status != 204:
            problems.append(f"run {run.id}: its stream goes on after its end")
        beyond.close()
    return problems + await _log_problems(house, runs, told=told)


async def _log_problems(house: House, runs: Iterable[WatchedRun], *, told: bool) -> list[str]:
    """Ends in Redis that are not the one of Postgres; with `told`, also those that are missing."""
    problems = []
    async with Redis.from_url(house.system.servers.redis_url) as redis:
        for run in runs:
            entries = await redis.xrange(events_key(UUID(run.id)))
            ends = [id_.decode() for id_, data in entries if msgspec.json.decode(data[b"d"])["type"] in TERMINAL]
            if ends != [run.watchers[0].cursor] and (told or ends):
                problems.append(f"run {run.id}: Redis has the ends {ends}, its client {run.watchers[0].cursor}")
    return problems


async def _partial_text(house: House, run: WatchedRun) -> list[str]:
    """The run keeps what its client has seen of the unfinished step, neither more nor less."""
    shown = ""
    for event in run.watchers[0].events:
        if event["type"] in ("started", "step", "discarded"):
            shown = ""
        elif event["type"] == "token":
            shown += event["content"]
    kept = (await house.clients[0].run(run.run))["partialText"]
    return [] if (kept or "") == shown else [f"run {run.id}: keeps {kept!r}, its client saw {shown!r}"]


async def _closed_calls(house: House, run: WatchedRun) -> list[str]:
    """A model call that a cancel cut is `cancelled`; a tool call is `unknown` where its effect may have happened."""
    rows = await house.system.rows("select state from model_calls where run_id = $1::uuid", run.id)
    problems = [
        f"run {run.id}, cancelled {run.moment}: a model call is {row['state']}"
        for row in rows
        if row["state"] not in ("completed", "cancelled")
    ]
    query = "select name, outcome, started_at from tool_calls where run_id = $1::uuid and outcome <> 'ok'"
    for row in await house.system.rows(query, run.id):
        uncertain = row["started_at"] is not None and row["name"] != "look"
        if row["outcome"] != ("unknown" if uncertain else "cancelled"):
            problems.append(f"run {run.id}: the outcome of {row['name']} is {row['outcome']}")
    return problems
