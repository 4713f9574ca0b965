"""Connections to Redis (or Valkey), and what it raises when it is down."""

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

from common.observability.metrics import REDIS_CONNECTS

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
    Closed, it stays closed: what was under way then fails, and opens no connection that nobody would close.
    """
    pool = _ClosingPool.from_url(
        url,
        decode_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=REPLY_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    pool.connection_class = type("Connection", (_OfOneClient, _CancellableWrites, pool.connection_class), {})
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)
    return client


class _ClosingPool(ConnectionPool):
    async def disconnect(self, inuse_connections: bool = True) -> None:
        if inuse_connections:  # Which is how redis-py closes a client.
            self.connection_class.client_is_closed = True  # type: ignore[attr-defined]
        await super().disconnect(inuse_connections)


class _OfOneClient(AbstractConnection if TYPE_CHECKING else object):  # type: ignore[misc]
    """redis-py opens a connection whenever a command finds none, also for a client that was closed meanwhile."""

    client_is_closed = False

    async def _connect(self) -> None:
        outcome = "failed"
        try:
            await super()._connect()
            outcome = "ok"
        finally:
            REDIS_CONNECTS.labels(outcome).inc()
        if self.client_is_closed:
            await self.disconnect(nowait=True)
            raise ConnectionError("this client was closed")


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
