"""The worker process: opens what all runs share, answers bells, beats, sweeps, drains."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import structlog
from redis.asyncio import Redis

from common.config import ConfigError, Settings, require
from common.eventlog.log import EventLog
from common.eventlog.signals import subscribe_cancels
from common.garbage import calm_garbage_collector
from common.limits import LimitBook
from common.observability.loop_lag import measure_loop_lag
from common.queue import Bell
from common.redis import open_redis, tls_of
from common.scrape import Scrape
from common.store.catalogue import Offers, ProviderOffer, ToolOffer, update_offers_left, upsert_offers
from common.store.database import DATABASE_DOWN, Pool, close_pool, open_pool
from common.store.schema import SchemaGate
from common.store.workers import delete_worker
from common.store.workspace_limits import upsert_default
from worker.bells import answer_bells
from worker.housekeeping import keep_house_for_ever
from worker.job import RunningRuns
from worker.providers import base as providers_base
from worker.providers.registry import build_providers, offers
from worker.recovery import sweep, take_due_runs
from worker.report import report
from worker.run.lease import BEATS_AT_ONCE, LeaseKeeper
from worker.run.resources import Resources
from worker.run.retry_budget import open_budgets
from worker.scrape import WorkerScrape
from worker.tools.base import Tool
from worker.tools.environment import hide_keys
from worker.tools.loading import load_tools

_log = structlog.get_logger(__name__)
_LISTEN_AGAIN_S = 1.0
_OFFER_EVERY_S = 20.0


async def serve(settings: Settings) -> None:
    """Runs the worker until SIGTERM or SIGINT, then drains. Raises ConfigError for what cannot work."""
    require(settings, "database_url", "redis_url")
    providers, provider_offers = build_providers(settings), offers(settings)
    hide_keys(settings)  # before the tools are imported: their modules must not find a key either
    tools = load_tools(settings.tools_module)
    leave = _leave_on_signal()
    pool = await _open_pool_when_up(settings, leave)
    if pool is None:
        return
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    beats_pool = await open_pool(settings, BEATS_AT_ONCE, await_postgres=False, idle_s=settings.lease_s)
    redis, queue_redis = (open_redis(url, tls_of(settings)) for url in (settings.redis_url, settings.queue_redis_url))
    resources = Resources(
        settings=settings,
        owner=owner,
        pool=pool,
        redis=redis,
        log=EventLog(redis, settings.stream_ttl_s),
        bell=Bell(queue_redis),
        keeper=LeaseKeeper(pool, owner, settings, beats_pool),
        providers=providers,
        retry_budgets=open_budgets(settings, providers),
        tools=tools,
        models={offer.name: frozenset(offer.models) for offer in provider_offers},
        limits=LimitBook(settings, pool),
    )
    calm_garbage_collector()
    _log.info("worker_started", owner=owner, providers=sorted(providers), tools=sorted(tools))
    try:
        await _work(resources, beats_pool, _offers(settings, provider_offers, tools), leave)
    finally:
        for provider in providers.values():
            await provider.close()
        for client in (redis, queue_redis):
            await client.aclose()
        await asyncio.gather(close_pool(pool), close_pool(beats_pool))
    _log.info("worker_stopped", owner=owner)


async def _work(resources: Resources, beats_pool: Pool, offered: Offers, leave: asyncio.Event) -> None:
    """Everything that goes on until `leave`, and the drain after it."""
    runs = RunningRuns(resources)
    scrape = WorkerScrape()
    scrape.show(runs, resources.pool, beats_pool)
    work = {
        "heartbeat": resources.keeper.run(),
        "due runs": take_due_runs(resources, runs),
        "sweep": sweep(resources, runs),
        **{
            f"{priority} bells": _persist(partial(answer_bells, resources.settings, runs, priority))
            for priority in resources.settings.worker_priorities
        },
        "cancels": _persist(partial(_hear_cancels, resources.redis, runs)),
        "housekeeping": keep_house_for_ever(resources.pool, resources.bell, resources.settings),
        "offers": _offer(resources.pool, resources.owner, offered),
        "report": report(resources, runs),
        "loop lag": measure_loop_lag(),
    }
    async with _serve_http(resources, scrape), asyncio.TaskGroup() as group:
        background = [group.create_task(one, name=name) for name, one in work.items()]
        await leave.wait()
        _log.info("worker_draining", owner=resources.owner)
        await runs.drain(resources.settings.worker_drain_s)
        await _cancel(background)
        with contextlib.suppress(*DATABASE_DOWN):
            await update_offers_left(resources.pool, resources.owner)
            await delete_worker(resources.pool, resources.owner)


def _serve_http(resources: Resources, scrape: Scrape) -> AbstractAsyncContextManager[int | None]:
    if not resources.settings.worker_metrics_port:
        return contextlib.nullcontext()
    from worker.http import serve_http  # what it needs takes a third of a second to import

    return serve_http(resources, scrape)


async def _persist(listen: Callable[[], Awaitable[None]]) -> None:
    """What is heard over Redis is only told sooner: whatever goes wrong with it, the worker lives on without."""
    while True:
        try:
            await listen()
        except Exception:
            _log.exception("listening_broke")
        await asyncio.sleep(_LISTEN_AGAIN_S)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancels until it has worked: before Python 3.12 a cancellation that meets an answer may get lost."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def _hear_cancels(redis: Redis, runs: RunningRuns) -> None:
    async with contextlib.aclosing(subscribe_cancels(redis)) as cancels:
        async for run_id in cancels:
            runs.cancel(run_id)


async def _offer(pool: Pool, owner: str, offered: Offers) -> None:
    """Keeps the catalogue's row of this worker fresh; the API forgets workers that fall silent."""
    while True:
        try:
            await upsert_offers(pool, owner, offered)
            pause_s = _OFFER_EVERY_S
        except DATABASE_DOWN as error:
            _log.warning("offers_not_written", error=type(error).__name__)
            pause_s = 1.0
        except Exception:
            # Its runs must not end for the catalogue's sake.
            _log.exception("offers_broke")
            pause_s = 1.0
        await asyncio.sleep(pause_s)


def _offers(settings: Settings, providers: list[providers_base.ProviderOffer], tools: Mapping[str, Tool]) -> Offers:
    return Offers(
        providers=[
            ProviderOffer(
                name=offer.name,
                configured=offer.configured,
                missing=offer.missing,
                models=offer.models,
                default=offer.name == settings.default_provider,
            )
            for offer in providers
        ],
        tools=[
            ToolOffer(name=tool.name, description=tool.description, parameters=tool.parameters, effect=tool.effect)
            for tool in tools.values()
        ],
    )


async def _open_pool_when_up(settings: Settings, leave: asyncio.Event) -> "Pool | None":
    """The pool, as soon as Postgres answers and is migrated; None when the worker is told to leave before that."""
    gate = SchemaGate()
    while not leave.is_set():
        try:
            pool = await open_pool(settings, size=settings.database_pool_size)
            is_ready = False
            try:
                if await gate.is_open(pool):
                    await upsert_default(pool, "running_runs", settings.limit_running_runs)
                    is_ready = True
            finally:
                if not is_ready:
                    await close_pool(pool)
            if is_ready:
                return pool
        except ConfigError:
            raise
        except DATABASE_DOWN as error:
            _log.warning("database_unreachable", error=type(error).__name__)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(leave.wait(), 1.0)
    return None


def _leave_on_signal() -> asyncio.Event:
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    return leave
