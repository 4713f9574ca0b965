"""The application: what it holds open, its routes, its one form of errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from api.auth import TokenVerifier
from api.body import JsonRequest
from api.collaboration.rooms import Rooms
from api.errors import answer_error
from api.headers import ANSWER_HEADERS, policy_of_style
from api.limits.admission import Admission
from api.limits.seats import Seats
from api.observer import RequestObserver
from api.openapi import JsonDocument, operation_id
from api.prices import load_prices
from api.query import check_parameters
from api.reference_page import STYLE, ReferencePage
from api.relay.hub import Hub
from api.resources import Resources
from api.routes.agents import agents
from api.routes.ai_sdk import ai_sdk
from api.routes.catalogue import catalogue
from api.routes.collaboration import collaborate
from api.routes.conversations import conversations
from api.routes.documents import documents
from api.routes.health import health
from api.routes.injection import DEPENDENCIES
from api.routes.messages import messages
from api.routes.openai import BROWSER_HEADERS, openai
from api.routes.operations import Figures, operations
from api.routes.runs import runs
from api.routes.streams import streams
from api.routes.tickets import tickets
from api.routes.usage import usage
from api.scrape import ApiScrape
from api.web.page import page_routes
from common.config import Settings, require
from common.eventlog.log import EventLog
from common.observability.loop_lag import measure_loop_lag
from common.queue import Bell
from common.redis import open_redis, tls_of
from common.store.database import close_pool, open_pool

_DESCRIPTION = (
    "A multi-tenant agent server. Send `Authorization: Bearer <JWT>`, and `X-Workspace-Id: <uuid>` when the token is "
    "for several workspaces. Ids are UUIDs, times RFC 3339 in UTC. Answers carry every field, null when empty; "
    "events leave empty fields out."
)


def create_app(settings: Settings) -> Litestar:
    """Raises ConfigError for settings that it cannot serve with; connects when it starts, or once Postgres is there."""
    require(settings, "database_url", "redis_url")
    measured, seats, prices = ApiScrape(), Seats(), load_prices(settings.model_prices)
    app = Litestar(
        [
            *(agents, conversations, messages, runs, streams, documents, collaborate, tickets, catalogue, health),
            *(usage, ai_sdk, openai, operations),
            *page_routes(settings),
        ],
        lifespan=[_lifespan],
        dependencies={
            **DEPENDENCIES,
            "measured": Provide(lambda: measured, sync_to_thread=False),
            "prices": Provide(lambda: prices, sync_to_thread=False),
        },
        exception_handlers={Exception: answer_error},
        middleware=[seats.middleware],
        before_request=check_parameters,
        response_headers=ANSWER_HEADERS,
        request_class=JsonRequest,
        request_max_body_size=settings.max_body_bytes,
        cors_config=_cors(settings),
        openapi_config=_openapi(),
        logging_config=None,
    )
    writes_lines = settings.access_log and settings.throughline_env == "production"
    app.asgi_handler = RequestObserver(app.asgi_handler, measured, writes_lines=writes_lines)
    app.state.settings = settings
    app.state.measured = measured
    app.state.seats = seats
    app.state.verifier = TokenVerifier(settings)
    return app


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        pool = await open_pool(settings, await_postgres=False)
        stack.push_async_callback(close_pool, pool)
        redis = open_redis(settings.redis_url, tls_of(settings))
        stack.push_async_callback(redis.aclose)
        queue_redis = open_redis(settings.queue_redis_url, tls_of(settings))
        stack.push_async_callback(queue_redis.aclose)
        log = EventLog(redis, settings.stream_ttl_s)
        hub = await stack.enter_async_context(Hub(redis, pool, log))
        admission = Admission(settings, pool, redis, app.state.seats)
        app.state.resources = Resources(settings, pool, redis, Bell(queue_redis), log, hub, admission)
        app.state.hub = hub
        app.state.figures = Figures(pool)
        app.state.rooms = await stack.enter_async_context(Rooms(redis, pool))
        app.state.measured.show(pool, hub, app.state.rooms)
        lag = asyncio.create_task(measure_loop_lag(), name="loop lag")
        stack.callback(lag.cancel)
        yield


def _cors(settings: Settings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_headers=[
            *("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Workspace-Id"),
            *("X-AI-SDK-Version", "X-Request-Id"),
            *BROWSER_HEADERS,
        ],
        expose_headers=["Retry-After", "X-Error-Code", "X-Request-Id", "X-Should-Retry"],
        max_age=600,
    )


def _openapi() -> OpenAPIConfig:
    bearer = SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
    return OpenAPIConfig(
        title="Throughline",
        version="1",
        description=_DESCRIPTION,
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, response_headers=policy_of_style(STYLE)
        ),
        render_plugins=[ReferencePage(path="/"), JsonDocument()],
        components=Components(security_schemes={"token": bearer}),
        security=[{"token": []}],
        use_handler_docstrings=True,
        operation_id_creator=operation_id,
    )
