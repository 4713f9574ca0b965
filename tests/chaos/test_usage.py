"""Model calls and tool calls are cut off by crashes, cancels and failures."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from common.settle import UNKNOWN_OUTCOME
from tests.support.audit import audit, audit_watchers
from tests.support.chaos import Chaos
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint
from tests.support.fleet import Fleet
from tests.support.model_script import Reply, TokenCounts
from tests.support.processes import RunningProcess
from tests.support.stages import WatchedRun, asked, named_plan
from tests.support.system import Client, System, running_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

_COST = TokenCounts()
_FAILURES: tuple[tuple[Reply, ...], ...] = (
    (Reply(status=429), Reply(text="then it answers")),
    (Reply(status=529), Reply(text="it breaks off here", cut_at=700), Reply(text="then it answers")),
    (Reply(text="some words, then", error="overloaded"),) * 3,
    (Reply(status=400),),
)
"""What the provider does to a run that names one of these; the last two end in failure."""


class House(NamedTuple):
    """One person at an API; each test brings its workers."""

    system: System
    client: Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """A system for the whole module."""
    async with running_system(forked=True) as system:
        yield House(system, await system.client(await system.api()))


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(house: House, chaos: Chaos) -> AsyncIterator[Fleet]:
    """Two workers that leave with the test."""
    fleet = Fleet(house.system, PROBE_SECONDS="0.3", PROVIDER_RETRY_BUDGET="10000", **chaos.leases)
    await fleet.grow(2)
    yield fleet
    await asyncio.gather(*(worker.stop() for worker in fleet.workers))


async def test_every_call_of_a_model_is_metered(chaos: Chaos, house: House, fleet: Fleet) -> None:
    """Kills, cancels and failures cut calls off: each is closed and counted, at its price or at a marked estimate."""
    runs = await asyncio.gather(*(_start(chaos, house, number) for number in range(chaos.pick(16, 200))))
    cancelling = asyncio.gather(*(_cancel_soon(chaos, house, run) for run in runs[1::6]))
    for _ in range(chaos.pick(1, 4)):
        await asyncio.sleep(chaos.random.uniform(0, chaos.pick(0.2, 10.0)))
        await _kill_amid_calls(chaos, house, fleet)
        await fleet.grow(1)
    await cancelling
    await asyncio.gather(*(run.seen_to_end() for run in runs))
    problems = await audit(house.system)
    states: Counter[str] = Counter()
    for run in runs:
        rows = await _model_calls(house, run.id)
        states.update(row["state"] for row in rows)
        problems += _metering_problems(run, rows, asked(house.system, run.run["model"]))
        problems += await _usage_problems(house, run, rows)
    chaos.figure("runs", len(runs))
    for state, count in sorted(states.items()):
        chaos.figure(f"model calls {state}", count)
    served = sum(asked(house.system, run.run["model"]) for run in runs)
    chaos.figure("requests that the provider served", served)
    chaos.figure("requests that are not metered", max(0, served - states.total()), 0)
    assert not problems, problems[:10]
    assert set(states) >= {"completed", "failed", "crashed", *chaos.pick((), ("cancelled",))}


async def test_outcomes_of_cut_calls_are_told(chaos: Chaos, house: House) -> None:
    """Workers die around the effects of tools: what is safe is done again under its key, the rest told as unknown."""
    pairs = chaos.pick(3, 24)
    settings = {**chaos.leases, "LEASE_S": "300", "WORKER_MAX_RUNS": str(pairs)}
    moments = ("tool.before_effect", "tool.after_effect")
    doomed = await asyncio.gather(
        *(house.system.worker(Failpoint(moment, "block", times=10_000), **settings) for moment in moments)
    )
    runs = [await _start_tools(house, ("anthropic", "openrouter", "openai")[number % 3]) for number in range(pairs * 2)]
    await eventually(lambda: [house.system.failpoints.fired(moment) for moment in moments] == [pairs * 3] * 2, 60)
    happened = Counter(line.split(" ")[3] for line in house.system.effects_noted())
    await asyncio.gather(*(worker.stop(signal.SIGKILL) for worker in doomed))
    await asyncio.gather(*(house.system.expire_leases(worker) for worker in doomed))
    chaos.fault("kill -9 of both workers, one before and one after the effects of its tools")
    worker = await house.system.worker(**chaos.leases)
    await asyncio.gather(*(run.seen_to_end() for run in runs))
    chaos.figure("calls cut before their effect", pairs * 3)
    chaos.figure("calls cut after their effect", pairs * 3)
    problems = await audit(house.system)
    problems += await audit_watchers(house.system, [run.watchers[0] for run in runs])
    for run in runs:
        problems += await _outcome_problems(house, run, happened)
    assert not problems, problems[:10]
    await worker.stop()


async def _start(chaos: Chaos, house: House, number: int) -> WatchedRun:
    """Every third run meets a failure of its provider; the others have tools between their words."""
    if number % 3 == 0:
        replies = _FAILURES[number // 3 % len(_FAILURES)]
        model = f"failing {chaos.seed} {number}"
        house.system.models.script(*replies, model=model)
    else:
        model = named_plan(steps=2, tools=chaos.random.choice(("look", "store", "charge")), words=30, pause_ms=30)
    provider = chaos.random.choice(("anthropic", "openrouter", "openai"))
    run = await house.client.start("go", provider=provider, model=model)
    return WatchedRun([house.client], run, "running")


async def _kill_amid_calls(chaos: Chaos, house: House, fleet: Fleet) -> None:
    """Kills a worker that is asking models for several runs, as soon as there is one."""

    async def asking() -> RunningProcess | None:
        for worker in fleet.workers:
            query = """
                select from runs r join model_calls c on c.run_id = r.id
                where r.state = 'running' and c.state = 'started' and r.lease_owner like $1
            """
            if len(await house.system.rows(query, f"%:{worker.pid}:%")) > 2:
                return worker
        return None

    worker = await eventually(asking, 60)
    orphans = await fleet.kill(worker)
    chaos.fault(f"kill -9 of worker {worker.pid}, which had {len(orphans)} runs")


async def _cancel_soon(chaos: Chaos, house: House, run: WatchedRun) -> None:
    """Most are cut amid the words of their first answer."""
    await run.shows("token")
    await asyncio.sleep(chaos.random.uniform(0, 0.8))
    answer = await house.client.http.post(f"/v1/runs/{run.id}/cancel")
    assert answer.status_code == 200, answer.text


async def _model_calls(house: House, run_id: str) -> Sequence[Any]:
    return await house.system.rows("select * from model_calls where run_id = $1::uuid order by started_at", run_id)


def _metering_problems(run: WatchedRun, rows: Sequence[Any], served: int) -> list[str]:
    """No request without its call; no call without its request, but for those that were cut before they were made."""
    problems = []
    states = Counter(row["state"] for row in rows)
    surely = states["completed"] + states["failed"]
    never = sum(row["state"] == "cancelled" and row["input_tokens"] == 0 for row in rows)
    if not surely <= served <= len(rows) - never:
        problems.append(f"run {run.id}: the provider served {served} requests, metered are {dict(states)}")
    for row in rows:
        price = (row["input_tokens"], row["output_tokens"], row["estimated"])
        if row["state"] == "completed" and price != (_COST.input, _COST.output, False):
            problems.append(f"run {run.id}: a whole answer was metered as {price}")
        if row["state"] in ("cancelled", "crashed") and row["estimated"] != (row["input_tokens"] > 0):
            problems.append(f"run {run.id}: a call that was {row['state']} costs {price}")
        if row["finished_at"] is None:
            problems.append(f"run {run.id}: a call is left open")
    return problems


async def _usage_problems(house: House, run: WatchedRun, rows: Sequence[Any]) -> list[str]:
    """The run tells the client the sum of all its calls, and so does its last event."""
    told = (await house.client.run(run.run))["usage"]
    problems = []
    if told["inputTokens"] != sum(row["input_tokens"] for row in rows):
        problems.append(f"run {run.id}: tells {told}, its calls sum up to another number")
    end = run.watchers[0].events[-1]
    if end["type"] == "done" and end["usage"] != told:
        problems.append(f"run {run.id}: its last event tells {end['usage']}, its row {told}")
    return problems


async def _start_tools(house: House, provider: str) -> WatchedRun:
    model = named_plan(steps=1, tools="look,store,charge", words=3)
    return WatchedRun([house.client], await house.client.start("go", provider=provider, model=model), provider)


async def _outcome_problems(house: House, run: WatchedRun, happened: Counter[str]) -> list[str]:
    """What client, ledger and model were told of three calls that a kill cut off; how often each had its effect."""
    problems = []
    rows = await house.system.rows("select * from tool_calls where run_id = $1::uuid order by index", run.id)
    lines = [line.split(" ") for line in house.system.effects_noted()]
    results = {event["toolCallId"]: event for event in run.watchers[0].events if event["type"] == "tool_result"}
    told = _told_to_model(house.system, run.run["model"])
    for row in rows:
        safe, outcome = (False, "unknown") if row["name"] == "charge" else (True, "ok")
        keys = [key for _, _, key, call in lines if call == row["id"]]
        others = {key for _, _, key, call in lines if call != row["id"]}
        if len(keys) != happened[row["id"]] + safe or len(set(keys)) > 1 or others.intersection(keys):
            problems.append(f"run {run.id}: {row['name']} took effect under the keys {keys}, before: {happened}")
        shown = results[row["id"]]
        if (row["outcome"], shown["outcome"], shown["isError"]) != (outcome, outcome, not safe):
            problems.append(f"run {run.id}: the outcome of {row['name']} is {row['outcome']}, its client saw {shown}")
        if (f"{row['name']} " if safe else UNKNOWN_OUTCOME) not in told:
            problems.append(f"run {run.id}: of {row['name']} the model was told {told}")
    return problems


def _told_to_model(system: System, model: str) -> str:
    """The results in the last request of this model, whichever its wire."""
    body = [request.body for request in system.models.requests if request.body["model"] == model][-1]
    found = []
    for item in body.get("messages") or body["input"]:
        if item.get("role") == "tool":
            found.append(str(item["content"]))
        elif item.get("type") == "function_call_output":
            found.append(str(item["output"]))
        elif item.get("role") == "user" and isinstance(item["content"], list):
            found += [str(block["content"]) for block in item["content"] if block["type"] == "tool_result"]
    return "\n".join(found)
