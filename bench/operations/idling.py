"""What a system costs that has nothing to do."""

import asyncio
from typing import NamedTuple

from redis.asyncio import Redis

from bench.processes import cpu_s
from bench.servers import Server

_SETTLE_S = 3.0


class Idle(NamedTuple):
    """Operations a second in Redis, of all processes together; CPU as percent of one, of each process by name."""

    redis_operations: float
    cpu_percent: dict[str, float]


async def measure_idle(server: Server, seconds: float) -> Idle:
    """Watches it for so long."""
    redis = Redis.from_url(server.redis_url)
    try:
        await asyncio.sleep(_SETTLE_S)
        cpu = {name: cpu_s(process) for name, process in server.processes.items()}
        before = await _operations(redis)
        await asyncio.sleep(seconds)
        after = await _operations(redis)
        percent = {name: (cpu_s(process) - cpu[name]) / seconds * 100 for name, process in server.processes.items()}
    finally:
        await redis.aclose()
    # One of them is the question itself.
    return Idle((after - before - 1) / seconds, percent)


async def _operations(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])
