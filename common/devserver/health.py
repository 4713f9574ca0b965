"""What a container's health check asks."""

import socket

from common.config import Settings
from common.devserver.readiness import is_ready
from common.store.catalogue import select_is_offering
from common.store.database import DATABASE_DOWN, open_pool


async def api_health(settings: Settings) -> bool:
    """Whether the API on this host can serve."""
    return await is_ready("127.0.0.1", settings.port)


async def worker_health(settings: Settings) -> bool:
    """Whether a worker on this host has told the catalogue lately that it is there."""
    try:
        pool = await open_pool(settings, size=1)
    except DATABASE_DOWN:
        return False
    try:
        return await select_is_offering(pool, socket.gethostname())
    finally:
        await pool.close()
