"""What a worker counts of its runs, and how it is asked for that."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.model.run_state import Effect
from common.store.database import Pool
from tests.support.eventually import eventually
from tests.support.figures import added
from tests.support.scripted_provider import Script, ScriptedProvider, calls, says
from tests.support.seed import seed_run
from tests.support.worker_life import claim_execution, worker_resources, write
from worker.http import serve_http
from worker.job import RunningRuns
from worker.providers.base import ProviderError, TextDelta
from worker.run.execution import Stop
from worker.run.resources import Resources
from worker.scrape import WorkerScrape
from worker.tools.base import tool

PORT = 29_464
_FIRST_TOKEN = "throughline_first_token_seconds"
_SEVEN_SECONDS_AGO = "update runs set available_at = available_at - interval '7 s' where id = $1"


@tool(effect=Effect.READ)
async def look(word: str = "") -> str:
    """Looks a word up."""
    return f"found {word}"


async def _run(resources: Resources, model: str = "listed") -> None:
    seeded = await seed_run(resources.pool, provider="scripted", model=model, tools=tuple(resources.tools))
    await write(resources.pool, seeded, _SEVEN_SECONDS_AGO, seeded.run.id)
    await (await claim_execution(resources)).run()


def _resources(settings: Settings, pool: Pool, redis: Redis, provider: ScriptedProvider) -> Resources:
    resources = worker_resources(settings, pool, redis, provider, {"look": look})
    return dataclasses.replace(resources, models={"scripted": {"listed"}})


@pytest.fixture
async def http(settings: Settings, pool: Pool, redis: Redis) -> AsyncIterator[httpx.AsyncClient]:
    """A client, and the address of no server yet."""
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


async def test_run_is_counted_from_claim_to_end(settings: Settings, pool: Pool, redis: Redis) -> None:
    """Pickup, first token by its parts, model calls, tokens, tool calls, events and the end, each where it belongs."""
    labels = {"provider": "scripted", "model": "listed"}
    figures = {
        added("throughline_pickup_seconds_count"): 1,
        added(f"{_FIRST_TOKEN}_count", part="queued"): 1,
        added(f"{_FIRST_TOKEN}_count", part="claimed"): 1,
        added(f"{_FIRST_TOKEN}_count", part="provider"): 1,
        added("throughline_model_calls_total", outcome="completed", **labels): 2,
        added("throughline_model_first_token_seconds_count", **labels): 2,
        added("throughline_tokens_total", kind="input", **labels): 20,
        added("throughline_tokens_total", kind="output", **labels): 10,
        added("throughline_tool_seconds_count", tool="look", outcome="ok"): 1,
        added("throughline_runs_ended_total", state="completed", code=""): 1,
    }
    events, waited = added("throughline_events_appended_total"), added("throughline_pickup_seconds_sum")
    parts = [added(f"{_FIRST_TOKEN}_sum", part=part) for part in ("queued", "claimed", "provider")]
    whole = added(f"{_FIRST_TOKEN}_sum", part="all")

    await _run(_resources(settings, pool, redis, ScriptedProvider(calls(("look", "{}")), says("there", "it is"))))

    assert [figure() for figure in figures] == list(figures.values())
    assert events() >= 6  # started, tool_call, step, tool_result, step, done
    assert 7 <= waited() < 60
    assert whole() == pytest.approx(sum(part() for part in parts))


async def test_failed_run_is_counted_by_why_it_failed(settings: Settings, pool: Pool, redis: Redis) -> None:
    """The provider's failure is one figure, the run's end another; a model that nobody lists is `other`."""
    refused = added("throughline_model_calls_total", provider="scripted", model="other", outcome="rejected")
    failed = added("throughline_runs_ended_total", state="failed", code="provider_rejected")
    provider = ScriptedProvider([TextDelta("some"), ProviderError("rejected", "no")])

    await _run(_resources(settings, pool, redis, provider), model="what a user has typed")

    assert (refused(), failed()) == (1, 1)


async def test_second_attempt_is_picked_up_again_and_tells_no_second_first_token(
    settings: Settings, pool: Pool, redis: Redis
) -> None:
    """A run that goes on after its first step has shown its first token long ago."""
    hangs: Script = [TextDelta("some"), asyncio.Event()]
    provider = ScriptedProvider(calls(("look", "{}")), hangs, says("done"))
    resources = _resources(settings, pool, redis, provider)
    await seed_run(pool, provider="scripted", model="listed", tools=("look",))
    pickups, first = added("throughline_pickup_seconds_count"), added(f"{_FIRST_TOKEN}_count", part="all")
    execution = await claim_execution(resources)
    running = asyncio.create_task(execution.run())
    await eventually(lambda: len(provider.requests) == 2)
    execution.stop(Stop.DRAIN)
    await running
    assert (pickups(), first()) == (1, 1)

    await (await claim_execution(resources)).run()

    assert (pickups(), first()) == (2, 1)


async def test_worker_tells_its_figures_and_health(
    settings: Settings, pool: Pool, redis: Redis, http: httpx.AsyncClient
) -> None:
    """Over HTTP of its own: whether it is well, what it has counted, and how much waits in the whole system."""
    settings = msgspec.structs.replace(settings, worker_metrics_port=PORT, worker_max_runs=7)
    resources = worker_resources(settings, pool, redis)
    scrape = WorkerScrape()
    scrape.show(RunningRuns(resources), pool, pool)
    seeded = await seed_run(pool)
    await write(pool, seeded, _SEVEN_SECONDS_AGO, seeded.run.id)
    async with serve_http(resources, scrape) as port:
        address = f"http://127.0.0.1:{port}"
        assert (await http.get(f"{address}/health/live")).json() == {"status": "ok"}
        ready = await http.get(f"{address}/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ok", "postgres": "ok", "redis": "ok"})
        answer = await http.get(f"{address}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for line in (
        "throughline_worker_free_places 7.0",
        "throughline_worker_running_runs 0.0",
        'throughline_queue_runs{priority="interactive",state="due"} 1.0',
        'throughline_queue_runs{priority="interactive",state="running"} 0.0',
        'throughline_pool_limit{pool="heartbeats"} 10.0',
    ):
        assert line in lines
    (oldest,) = (
        line for line in lines if line.startswith('throughline_queue_oldest_due_seconds{priority="interactive"')
    )
    assert 7 <= float(oldest.split()[-1]) < 60


async def test_workers_of_one_machine_take_ports_of_their_own(
    settings: Settings, pool: Pool, redis: Redis, http: httpx.AsyncClient
) -> None:
    """The next free port each."""
    settings = msgspec.structs.replace(settings, worker_metrics_port=PORT)
    resources = worker_resources(settings, pool, redis)
    async with serve_http(resources, WorkerScrape()) as first, serve_http(resources, WorkerScrape()) as second:
        assert first is not None
        assert second is not None
        assert first < second
        for port in (first, second):
            assert (await http.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200


async def test_figures_of_a_worker_are_for_who_has_the_token(
    settings: Settings, pool: Pool, redis: Redis, http: httpx.AsyncClient
) -> None:
    """With METRICS_TOKEN nobody else gets them, not even on the machine itself; health is for anyone."""
    settings = msgspec.structs.replace(settings, worker_metrics_port=PORT, metrics_token="let me look")
    async with serve_http(worker_resources(settings, pool, redis), WorkerScrape()) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        statuses = [
            (await http.get(url, headers=headers)).status_code
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer let me look"})
        ]
        assert statuses == [401, 401, 200]
        assert (await http.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200
