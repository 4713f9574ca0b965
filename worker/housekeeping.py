"""What one of the workers does every few minutes: it removes what retention lets go."""

import asyncio
import random

import structlog

from common.config import Settings
from common.housekeeping import keep_house
from common.queue import Bell
from common.store.database import DATABASE_DOWN, Pool
from common.store.housekeeping import take_round

_log = structlog.get_logger(__name__)


async def keep_house_for_ever(pool: Pool, bell: Bell, settings: Settings) -> None:
    """Does each round that is due and that no other worker has taken, until cancelled. A round is over before the next.

    It waits first, for a time of its own: workers that start together do not ask together.
    """
    every_s = settings.housekeeping_s
    while True:
        await asyncio.sleep(every_s * random.uniform(0.1, 1.1))  # noqa: S311
        try:
            if await take_round(pool, every_s):
                removed = await keep_house(pool, bell, settings, every_s / 2)
                _log.info("housekeeping_done", **removed)
        except DATABASE_DOWN as error:
            _log.warning("housekeeping_failed", error=type(error).__name__)
        except Exception:
            _log.exception("housekeeping_broke")
