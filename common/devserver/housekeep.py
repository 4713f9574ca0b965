"""`throughline housekeep`: a round by hand."""

from common.config import Settings, redact_url, require
from common.devserver.errors import DevServerError
from common.housekeeping import keep_house
from common.queue import Bell
from common.redis import open_redis, tls_of
from common.store.database import DATABASE_DOWN, close_pool, open_pool

_LIMIT_S = 24 * 3600


async def housekeep(settings: Settings) -> dict[str, int]:
    """Removes everything that is outdated now, beside whatever runs; how much of what. Raises DevServerError."""
    require(settings, "database_url", "redis_url")
    try:
        pool = await open_pool(settings, size=1)
        redis = open_redis(settings.queue_redis_url, tls_of(settings))
        try:
            return await keep_house(pool, Bell(redis), settings, _LIMIT_S)
        finally:
            await redis.aclose()
            await close_pool(pool)
    except DATABASE_DOWN as error:
        raise DevServerError(f"cannot reach the database {redact_url(settings.database_url)}: {error}") from error
