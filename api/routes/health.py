"""Health and metrics: no token, no workspace."""

import asyncio
from collections.abc import Awaitable
from typing import Literal

import structlog
from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import SkipValidation

from api.metrics import Metrics
from api.routes.injection import Process
from common.model.answers import Alive, Health
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN, DATABASE_REFUSES, check_alive

_LIMIT_S = 4.0
_log = structlog.get_logger(__name__)


@get("/health/live")
async def live() -> Alive:
    """Whether this process answers."""
    return Alive()


@get("/health/ready", responses={503: ResponseSpec(Health, generate_examples=False, description="Without Postgres")})
async def ready(resources: Process) -> Response[Health]:
    """Whether requests should come here: yes while Postgres answers, also without Redis. Asks each for 4 s at most.

    Redis is the same for all processes: to take each of them out of service for it would end what goes on without it.
    """
    postgres, redis = await asyncio.gather(_ask(check_alive(resources.pool)), _ask(resources.redis.ping()))
    status: Literal["ok", "degraded", "unavailable"] = "ok" if redis == "ok" else "degraded"
    if postgres == "down":
        status = "unavailable"
    health = Health(status=status, postgres=postgres, redis=redis)
    return Response(health, status_code=503 if postgres == "down" else 200)


@get("/metrics", media_type=MediaType.TEXT)
async def metrics(measured: NamedDependency[SkipValidation[Metrics]]) -> Response[bytes]:
    """Figures of this process in Prometheus' text form."""
    return Response(measured.render(), media_type=Metrics.MEDIA_TYPE)


async def _ask(answer: Awaitable[object]) -> Literal["ok", "down"]:
    try:
        async with asyncio.timeout(_LIMIT_S):
            await answer
    except DATABASE_REFUSES as error:
        # A password or a role that is refused: it answers, but not to us.
        _log.error("store_refuses", error=str(error))
        return "down"
    except (*DATABASE_DOWN, *REDIS_DOWN):
        return "down"
    except Exception:
        # What nobody thought of still must not make a probe's answer a 500.
        _log.exception("store_refuses")
        return "down"
    return "ok"


health = Router("/", tags=["Health"], security=[{}], route_handlers=[live, ready, metrics])
