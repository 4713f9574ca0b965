"""What a container's health check asks."""

import asyncio
import socket

from common.config import Settings
from common.devserver.readiness import is_ready
from common.store.catalogue import select_is_offering
from common.store.database import DATABASE_DOWN, open_pool


async def api_health(settings: Settings) -> bool:
    """Whether the API on this host can serve."""
    return await is_ready("127.0.0.1", settings.port)


async def worker_health(settings: Settings, within_s: float = 60) -> bool:
    """Whether a worker on this host has told the catalogue within `within_s` seconds that it is there."""
    try:
        async with await open_pool(settings, size=1) as pool:
            return await select_is_offering(pool, socket.gethostname(), within_s)
    except DATABASE_DOWN:
        return False


async def until_worker_speaks(settings: Settings, since: float) -> None:
    """Returns once a worker on this host has told the catalogue that it is there, after the loop's time `since`."""
    loop = asyncio.get_running_loop()
    while True:
        if await worker_health(settings, loop.time() - since):
            return
        await asyncio.sleep(0.1)
