"""Connections to Redis (or Valkey), and what it raises when it is down."""

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

REDIS_DOWN = (RedisError, OSError)
"""What a command raises when Redis is gone, starting, full, read-only or silent: try again later.

An error answer (OOM, LOADING, READONLY, MISCONF …) is among them: it never says anything about a run.
"""

CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 5.0


def open_redis(url: str) -> redis.asyncio.Redis:
    """A client that connects on first use. Bytes in, bytes out; close it with `aclose()`.

    A command is never sent twice behind the caller's back, and waits at most REPLY_TIMEOUT_S, also one that
    blocks: give `BRPOP` a shorter timeout of its own, and use `get_message(timeout=…)` instead of `listen()`.
    """
    pool = ConnectionPool.from_url(
        url,
        decode_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=REPLY_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    pool.connection_class = type("Connection", (_CancellableWrites, pool.connection_class), {})
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)
    return client


class _CancellableWrites(AbstractConnection if TYPE_CHECKING else object):  # type: ignore[misc]
    """redis-py limits writes with `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation."""

    socket_timeout: float | None

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        limit_s, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit_s):
                await super().send_packed_command(command, check_health)
        finally:
            self.socket_timeout = limit_s
