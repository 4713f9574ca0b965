"""Runs wait for their turn while workers and APIs get `kill -9`, runs are cancelled and conversations deleted."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

import httpx

from tests.support.audit import audit
from tests.support.chaos import Chaos
from tests.support.fleet import Fleet
from tests.support.insist import insist
from tests.support.kept_api import KeptApi, kept_apis
from tests.support.stages import named_plan
from tests.support.system import Client, System, running_system

_NEVER_STARTED = "select id from runs where started_at is null and state <> 'cancelled'"
_OUT_OF_TURN = """
    select later.id from runs later
    join runs earlier on earlier.conversation_id = later.conversation_id and earlier.turn > later.turn
    where earlier.started_at < later.started_at
"""
_SIDE_BY_SIDE = """
    select one.id from runs one
    join runs other on other.conversation_id = one.conversation_id and other.id <> one.id
    where one.started_at < other.finished_at and other.started_at < one.finished_at
"""


async def test_waiting_runs_start_in_order(chaos: Chaos) -> None:
    """Chains of runs under crashes, cancels and deletes: one active at a time, in order, and none is forgotten."""
    async with (
        running_system(durable=True, forked=True) as system,
        kept_apis(system, chaos.fault) as (apis, clients),
    ):
        fleet = Fleet(system, PROBE_SECONDS="0.1", **chaos.leases)
        await fleet.grow(chaos.pick(2, 3))
        conversations = [await clients[0].conversation() for _ in range(chaos.pick(5, 40))]
        chains = [_Chain(clients, id_, number, chaos) for number, id_ in enumerate(conversations)]
        running = asyncio.gather(*(chain.run(chaos.pick(5, 20)) for chain in chains))
        await _kill_meanwhile(chaos, fleet, apis, running)
        await system.all_ended(chaos.pick(60, 200))
        await _report(chaos, system, chains)


class _Chain:
    """A conversation to which somebody adds runs, faster than they end, through whichever API answers."""

    def __init__(self, clients: Sequence[Client], conversation_id: str, number: int, chaos: Chaos) -> None:
        self.deleted = False
        self.accepted: list[str] = []
        self._clients = clients
        self._path = f"/v1/conversations/{conversation_id}"
        self._number = number
        self._chaos = chaos

    async def run(self, length: int) -> None:
        """So many posts; now and then a cancel of any run, an interruption, at last perhaps the conversation's end."""
        dice = self._chaos.random
        for place in range(length):
            await self._post(f"{self._number}-{place}", "interrupt" if dice.random() < 0.06 else "enqueue")
            await asyncio.sleep(dice.uniform(0, 0.3))
            if dice.random() < 0.3:
                await self._cancel(dice.choice(self.accepted[-4:]))
        if dice.random() < 0.2:
            await insist(lambda: self._any_api.delete(self._path), (204, 404))
            self.deleted = True

    async def _post(self, key: str, mode: str) -> None:
        model = named_plan(steps=self._chaos.random.randrange(2), tools="look", words=5, pause_ms=10)
        body = {"content": key, "provider": "anthropic", "model": model, "ifBusy": mode}

        def post() -> Awaitable[httpx.Response]:
            return self._any_api.post(f"{self._path}/messages", json=body, headers={"Idempotency-Key": key})

        answer = await insist(post)
        self.accepted.append(answer.json()["run"]["id"])

    async def _cancel(self, run_id: str) -> None:
        await insist(lambda: self._any_api.post(f"/v1/runs/{run_id}/cancel"), (200,))

    @property
    def _any_api(self) -> httpx.AsyncClient:
        return self._chaos.random.choice(self._clients).http


async def _kill_meanwhile(chaos: Chaos, fleet: Fleet, apis: Sequence[KeptApi], running: "asyncio.Future[Any]") -> None:
    """Workers and APIs, in turn, until the chains have their last run, and once more."""
    while True:
        await asyncio.wait({running}, timeout=chaos.pick(1.0, 3.0))
        worker = chaos.random.choice(fleet.workers)
        orphans = await fleet.kill(worker)
        chaos.fault(f"kill -9 of worker {worker.pid}, which had {len(orphans)} runs")
        if running.done():
            break
        await chaos.random.choice(apis).kill()
        await fleet.grow(1)
    await running
    await fleet.grow(1)


async def _report(chaos: Chaos, system: System, chains: Sequence[_Chain]) -> None:
    rows = await system.rows("select id::text, state, cancel_requested_at from runs")
    states = Counter(row["state"] for row in rows)
    chaos.figure("conversations", len(chains))
    chaos.figure("conversations deleted", sum(chain.deleted for chain in chains))
    chaos.figure("runs", len(rows))
    for state, count in sorted(states.items()):
        chaos.figure(f"runs {state}", count)
    accepted = {run for chain in chains for run in chain.accepted}
    chaos.figure("accepted runs that are not there, or others that are", len(accepted ^ {row["id"] for row in rows}), 0)
    chaos.figure("runs that failed", states["failed"], 0)
    unasked = [row for row in rows if row["state"] == "cancelled" and row["cancel_requested_at"] is None]
    chaos.figure("runs cancelled unasked", len(unasked), 0)
    chaos.figure("runs that never started", len(await system.rows(_NEVER_STARTED)), 0)
    chaos.figure("runs out of turn", len(await system.rows(_OUT_OF_TURN)), 0)
    chaos.figure("runs beside another of their conversation", len(await system.rows(_SIDE_BY_SIDE)), 0)
    problems = await audit(system)
    assert not problems, problems[:10]
