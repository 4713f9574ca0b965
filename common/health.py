"""Whether a process can do its work: which of its two stores answers."""

import asyncio
from collections.abc import Awaitable
from typing import Literal

import structlog
from redis.asyncio import Redis

from common.model.answers import Health
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN, DATABASE_REFUSES, Pool, check_alive
from common.store.schema import SchemaGate

_LIMIT_S = 4.0
_log = structlog.get_logger(__name__)


async def ask_stores(pool: Pool, redis: Redis, schema: SchemaGate) -> Health:
    """Asks both at once, for 4 s at most; without Postgres nothing can be done, without Redis it is done late."""
    postgres_says, redis_says = await asyncio.gather(_ask_postgres(pool, schema), _ask(redis.ping()))
    status: Literal["ok", "degraded", "unavailable"] = "ok" if redis_says == "ok" else "degraded"
    if postgres_says != "ok":
        status = "unavailable"
    return Health(status=status, postgres=postgres_says, redis=redis_says)


async def _ask_postgres(pool: Pool, schema: SchemaGate) -> Literal["ok", "down", "behind"]:
    is_behind = False

    async def look() -> None:
        nonlocal is_behind
        await check_alive(pool)
        is_behind = not await schema.is_open(pool)

    answer = await _ask(look())
    return "behind" if is_behind else answer


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
        # What nobody thought of still must not make a probe's answer an error.
        _log.exception("store_refuses")
        return "down"
    return "ok"
