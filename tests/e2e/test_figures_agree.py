"""A thousand runs of all kinds: metrics, operators' page and usage count them as the database does."""

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from itertools import cycle
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from tests.support.api_client import make_token
from tests.support.eventually import eventually
from tests.support.model_script import Reply
from tests.support.planned_model import plan
from tests.support.scraped import Scraped, address_of
from tests.support.system import SECRET, Client, System, running_system

_TOKEN = "a scraper's own token"
_PRICES = {"anthropic": ("3", "15"), "openai": ("1.25", "10"), "echo": ("0.5", "0.25")}
_SETTINGS = {
    "METRICS_TOKEN": _TOKEN,
    "WORKER_METRICS_PORT": "29520",
    "MODEL_PRICES": msgspec.json.encode(
        {
            "currency": "USD",
            "prices": [
                {"provider": name, "model": "*", "input": float(read), "output": float(written)}
                for name, (read, written) in _PRICES.items()
            ],
        }
    ).decode(),
}


class Kind(NamedTuple):
    """So many runs of one model."""

    runs: int
    provider: str
    model: str


_NEVER_BEGUN = Kind(30, "echo", "echo")
_CRASHED = Kind(30, "anthropic", "hangs-once")
_BEFORE_THE_CRASH = [Kind(40, "anthropic", plan(steps=1, words=5)), Kind(20, "echo", "echo?fail=rejected")]
_STOPPED = Kind(100, "anthropic", "hangs")
_REFUSED = Kind(90, "anthropic", "refused")
_REST = [
    Kind(320, "echo", "echo"),
    Kind(150, "anthropic", plan(steps=2, tools="look,store", words=5)),
    Kind(120, "openai", plan(words=8)),
    Kind(30, "echo", "echo?tool=fail&args=%7B%22reason%22%3A%22no%22%7D"),
    Kind(30, "echo", "echo?fail=rate_limited&cutAfter=2"),
    Kind(40, "echo", "echo?fail=context_length"),
    _REFUSED,
]
_ALL = [_NEVER_BEGUN, _CRASHED, *_BEFORE_THE_CRASH, _STOPPED, *_REST]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_all_figures_of_a_thousand_mixed_runs_are_the_databases() -> None:
    """Completed, failed, cancelled before and after they began, taken over from a worker that was killed: counters of
    all processes (the dead one's as they were scraped last), summary, history, failed runs, use and usage."""
    assert sum(kind.runs for kind in _ALL) == 1000
    async with running_system() as system:
        api = await system.api(**_SETTINGS)
        clients = [await system.client(api) for _ in range(3)]
        begin = _Beginner(system, clients)
        await begin.cancelled(_NEVER_BEGUN)
        of_the_dead = await _crash(system, begin)
        workers = [await system.worker(**_SETTINGS), await system.worker(**_SETTINGS)]
        await begin.stopped(_STOPPED)
        system.models.script(*[Reply(status=400)] * _REFUSED.runs, model=_REFUSED.model)
        await begin.many(_REST)
        await system.all_ended(300)

        living = [await address_of(worker) for worker in workers]
        of_workers = await _idle(living)
        told = await Scraped.of(api.url, _TOKEN) + of_the_dead + of_workers
        assert _metrics(told) == await _rows_as_metrics(system)
        superuser = {"authorization": f"Bearer {make_token(SECRET, user='olga', is_superuser=True)}"}
        async with httpx.AsyncClient(base_url=api.url, headers=superuser, timeout=30, trust_env=False) as operator:
            await _page_agrees(system, operator, of_workers)
        for client in clients:
            await _usage_agrees(system, client)


class _Beginner:
    """Begins runs in all workspaces in turn, of both priorities, a few at once."""

    def __init__(self, system: System, clients: Sequence[Client]) -> None:
        self._system = system
        self._turns = cycle((client, priority) for priority in ("interactive", "background") for client in clients)
        self._few = asyncio.Semaphore(8)

    async def many(self, kinds: Sequence[Kind]) -> list[tuple[Client, dict[str, Any]]]:
        """The runs, with who has asked for each."""

        async def one(kind: Kind) -> tuple[Client, dict[str, Any]]:
            async with self._few:
                client, priority = next(self._turns)
                fields = {"provider": kind.provider, "model": kind.model, "priority": priority}
                return client, await client.start("What is there to count?", **fields)

        return await asyncio.gather(*(one(kind) for kind in kinds for _ in range(kind.runs)))

    async def cancelled(self, kind: Kind) -> None:
        """Runs that are cancelled as they are."""
        await self._cancel(await self.many([kind]))

    async def stopped(self, kind: Kind) -> None:
        """Runs that are cancelled in the middle of their answer."""
        self._system.models.script(*[Reply(text="a b c d", hang_after=5)] * kind.runs, model=kind.model)
        models = self._system.models
        begun = await self.many([kind])
        await eventually(lambda: models.open_streams == kind.runs, 60)
        await self._cancel(begun)
        await self._system.all_ended(60)

    async def _cancel(self, begun: Sequence[tuple[Client, dict[str, Any]]]) -> None:
        for client, run in begun:
            answer = await client.http.post(f"/v1/runs/{run['id']}/cancel")
            assert answer.is_success, answer.text


async def _crash(system: System, begin: _Beginner) -> Scraped:
    """A worker does some work, and is killed while its model says nothing; what it told when it was last asked."""
    models = system.models
    worker = await system.worker(**_SETTINGS)
    await begin.many(_BEFORE_THE_CRASH)
    await system.all_ended(60)
    models.script(*[Reply(text="a b c d", hang_after=5)] * _CRASHED.runs, model=_CRASHED.model)
    await begin.many([_CRASHED])
    await eventually(lambda: models.open_streams == _CRASHED.runs, 60)
    told = await Scraped.of(await address_of(worker), _TOKEN)
    await worker.stop(signal.SIGKILL)
    await system.expire_leases(worker)
    return told


async def _idle(addresses: Sequence[str]) -> Scraped:
    """What the workers tell once they have nothing in hand."""

    async def idle() -> Scraped | None:
        told = Scraped([])
        for address in addresses:
            told += await Scraped.of(address, _TOKEN)
        return told if told.sum("throughline_worker_running_runs") == 0 else None

    found: Scraped = await eventually(idle, 30)
    return found


_Counts = dict[str, Counter[tuple[str, ...]]]


def _metrics(told: Scraped) -> _Counts:
    calls = told.sums("throughline_model_calls_total", "provider", "outcome")
    by_state: Counter[tuple[str, ...]] = Counter()
    for (provider, outcome), count in calls.items():
        by_state[provider, outcome if outcome in ("completed", "cancelled") else "failed"] += count
    return {
        "ends": told.sums("throughline_runs_ended_total", "state", "code"),
        "pickups": told.sums("throughline_pickup_seconds_count"),
        "first tokens": told.sums("throughline_first_token_seconds_count", "part"),
        "expired leases": told.sums("throughline_leases_expired_total", "verdict"),
        "model calls": by_state,
        "tokens": told.sums("throughline_tokens_total", "provider", "kind"),
        "tool calls": told.sums("throughline_tool_seconds_count", "tool", "outcome"),
    }


async def _rows_as_metrics(system: System) -> _Counts:
    """The same of the database. Nobody was left to count the calls that a worker's death cut off."""
    kinds = ("input", "output", "cached_input", "cache_write", "reasoning")
    tokens = ", ".join(f"('{kind}', {kind}_tokens)" for kind in kinds)
    return {
        "ends": await _count(system, "select state, coalesce(error_code, ''), count(*) from runs group by 1, 2"),
        "pickups": await _count(system, "select sum(attempt) from runs where claimed_at is not null"),
        "first tokens": await _count(
            system,
            """
            select part, count(*) from unnest(array['queued', 'claimed', 'provider', 'all']) part, runs
            where exists (select from messages m where m.run_id = runs.id and m.role = 'assistant')
               or (crashes_total = 0 and first_token_at is not null)
            group by 1
            """,
        ),
        "expired leases": await _count(system, "select 'requeued', sum(crashes_total) from runs"),
        "model calls": await _count(
            system, "select provider, state, count(*) from model_calls where state <> 'crashed' group by 1, 2"
        ),
        "tokens": await _count(
            system,
            f"""
            select provider, kind, sum(tokens) from model_calls, lateral (values {tokens}) as used (kind, tokens)
            where state <> 'crashed' group by 1, 2 having sum(tokens) > 0
            """,
        ),
        "tool calls": await _count(system, "select name, outcome, count(*) from tool_calls group by 1, 2"),
    }


async def _page_agrees(system: System, operator: httpx.AsyncClient, of_workers: Scraped) -> None:
    """What the operators' page asks for."""
    ended = await _count(system, "select state, error_code, count(*) from runs group by 1, 2")
    summary = (await operator.get("/v1/ops/summary")).json()
    history = (await operator.get("/v1/ops/history")).json()["data"]
    use = (await operator.get("/v1/ops/workspaces")).json()["data"]

    assert {(one["state"], one["code"]): one["runs"] for one in summary["ended"]} == ended
    for queue in summary["queues"]:
        assert [queue[name] for name in ("queued", "due", "running", "waiting")] == [0, 0, 0, 0]
    for state in ("completed", "failed", "cancelled"):
        assert sum(minute[state] for minute in history) == sum(n for key, n in ended.items() if key[0] == state)
    [tokens] = await system.rows("select sum(output_tokens) as written from model_calls")
    assert sum(minute["outputTokens"] for minute in history) == tokens["written"]
    assert {
        (one["workspaceId"], one["inputTokensThisMonth"], one["outputTokensThisMonth"]): one["runsThisMonth"]
        for one in use
    } == await _count(
        system,
        """
        select c.workspace_id::text, sum(c.input_tokens)::bigint, sum(c.output_tokens)::bigint,
               (select count(*) from runs r where r.workspace_id = c.workspace_id)
        from model_calls c group by c.workspace_id
        """,
    )
    assert await _failed(operator) == await _count(
        system, "select id::text, error_code, 1 from runs where state = 'failed'"
    )

    async def reported() -> bool:
        workers = (await operator.get("/v1/ops/summary")).json()["workers"]
        living = [worker for worker in workers if worker["state"] == "working"]
        written = of_workers.sums("throughline_tokens_total", "kind")["output",]
        assert sum(worker["runsEnded"] for worker in living) == of_workers.sum("throughline_runs_ended_total")
        assert sum(worker["outputTokens"] for worker in living) == written
        return True

    await eventually(reported, 20, 0.5)


async def _failed(operator: httpx.AsyncClient) -> Counter[tuple[str, ...]]:
    """All pieces of the list of failed runs, each run with its code."""
    found: Counter[tuple[str, ...]] = Counter()
    cursor = None
    while True:
        params = {"limit": "50"} | ({"cursor": cursor} if cursor else {})
        piece = (await operator.get("/v1/ops/failed-runs", params=params)).json()
        found.update((run["runId"], run["code"]) for run in piece["data"])
        cursor = piece["nextCursor"]
        if cursor is None:
            return found


async def _usage_agrees(system: System, client: Client) -> None:
    """Every request to a model, those of the dead worker too, and what they cost."""
    report = (await client.http.get("/v1/usage", params={"groupBy": "model"})).json()
    rows = await system.rows(
        """
        select provider, model, count(*) as calls, count(*) filter (where estimated) as estimated,
               sum(input_tokens)::bigint as read, sum(output_tokens)::bigint as written
        from model_calls where workspace_id = $1 group by 1, 2
        """,
        client.workspace_id,
    )

    assert {
        (one["provider"], one["model"]): (
            one["calls"],
            one["estimatedCalls"],
            one["inputTokens"],
            one["outputTokens"],
            Decimal(one["cost"]),
        )
        for one in report["data"]
    } == {(row["provider"], row["model"]): (*tuple(row)[2:], _cost(*row)) for row in rows}
    assert report["total"]["calls"] == sum(row["calls"] for row in rows)
    assert Decimal(report["total"]["cost"]) == sum(_cost(*row) for row in rows)
    assert report["total"]["unpricedCalls"] == 0


def _cost(provider: str, _model: str, _calls: int, _estimated: int, read: int, written: int) -> Decimal:
    input_price, output_price = _PRICES[provider]
    return (read * Decimal(input_price) + written * Decimal(output_price)) / 1_000_000


async def _count(system: System, query: str) -> Counter[tuple[str, ...]]:
    """The last column by all others."""
    return Counter({tuple(row)[:-1]: int(tuple(row)[-1]) for row in await system.rows(query)})
