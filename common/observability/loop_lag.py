"""How late the event loop is: what everything else in the process waits for."""

import asyncio

from common.observability.metrics import LOOP_LAG

_INTERVAL_S = 1.0


async def measure_loop_lag(interval_s: float = _INTERVAL_S) -> None:
    """Until cancelled, once every `interval_s` seconds."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        LOOP_LAG.observe(max(0.0, loop.time() - due))
