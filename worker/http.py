"""The worker's own HTTP: whether it is well, and what it has counted. Nothing else is served here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web

from common.config import Settings
from common.health import ask_stores
from common.model.answers import Alive
from common.peer import may_scrape
from common.scrape import Scrape
from common.store.schema import SchemaGate
from worker.run.resources import Resources

PORTS = 20
"""How many workers on one machine find a port of their own, from WORKER_METRICS_PORT on."""

_log = structlog.get_logger(__name__)
_Answer = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serve_http(resources: Resources, scrape: Scrape) -> AsyncIterator[int | None]:
    """Answers at the first free port from WORKER_METRICS_PORT on, and says which.

    A worker that finds none works all the same: it logs that, and is missed by whoever asks it.
    """
    settings = resources.settings
    runner = web.AppRunner(_app(resources, scrape), handle_signals=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        port = await _listen(runner, settings)
        if port is None:
            _log.error("worker_metrics_port_taken", host=settings.worker_host, port=settings.worker_metrics_port)
        else:
            _log.info("worker_metrics_served", host=settings.worker_host, port=port)
        yield port
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings) -> int | None:
    first = settings.worker_metrics_port
    for port in range(first, min(first + PORTS, 65536)):
        try:
            await web.TCPSite(runner, settings.worker_host, port).start()
        except OSError:
            continue
        return port
    return None


def _app(resources: Resources, scrape: Scrape) -> web.Application:
    app = web.Application()
    app.router.add_get("/health/live", _live)
    app.router.add_get("/health/ready", _ready(resources))
    app.router.add_get("/metrics", _metrics(resources.settings.metrics_token, scrape))
    return app


async def _live(_: web.Request) -> web.Response:
    return _json(Alive())


def _ready(resources: Resources) -> _Answer:
    schema = SchemaGate()

    async def ready(_: web.Request) -> web.Response:
        health = await ask_stores(resources.pool, resources.redis, schema)
        is_down = health.status == "unavailable"
        return _json(health, HTTPStatus.SERVICE_UNAVAILABLE if is_down else HTTPStatus.OK)

    return ready


def _metrics(token: str, scrape: Scrape) -> _Answer:
    async def metrics(request: web.Request) -> web.Response:
        if not may_scrape(token, request.headers.get("Authorization"), request.remote, request.headers):
            return web.Response(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
        return web.Response(body=await scrape.render(), headers={"Content-Type": Scrape.MEDIA_TYPE})

    return metrics


def _json(answer: msgspec.Struct, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")
