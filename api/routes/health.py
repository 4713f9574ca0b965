"""Health and metrics: no token, no workspace."""

from typing import Any

from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import SkipValidation

from api.routes.injection import Process
from api.scrape import ApiScrape
from common.errors import ErrorCode, ThroughlineError
from common.health import ask_stores
from common.model.answers import Alive, Health
from common.peer import may_scrape


@get("/health/live")
async def live() -> Alive:
    """Whether this process answers."""
    return Alive()


@get(
    "/health/ready",
    responses={503: ResponseSpec(Health, generate_examples=False, description="Without Postgres, or its migrations")},
)
async def ready(resources: Process) -> Response[Health]:
    """Whether requests should come here: yes while Postgres answers, also without Redis. Asks each for 4 s at most.

    Redis is the same for all processes: to take each of them out of service for it would end what goes on without it.
    """
    health = await ask_stores(resources.pool, resources.redis, resources.schema)
    return Response(health, status_code=503 if health.status == "unavailable" else 200)


@get("/metrics", media_type=MediaType.TEXT)
async def metrics(
    request: Request[Any, Any, State], resources: Process, measured: NamedDependency[SkipValidation[ApiScrape]]
) -> Response[bytes]:
    """Figures of this process in Prometheus' text form, for who sends METRICS_TOKEN; without one, for this machine."""
    client = request.client.host if request.client else None
    token = resources.settings.metrics_token
    if not may_scrape(token, request.headers.get("authorization"), client, request.headers):
        raise ThroughlineError(ErrorCode.UNAUTHORIZED, "Send METRICS_TOKEN: Authorization: Bearer <token>.")
    return Response(await measured.render(), media_type=ApiScrape.MEDIA_TYPE)


health = Router("/", tags=["Health"], security=[{}], route_handlers=[live, ready, metrics])
