"""Connections to Redis (or Valkey), and what it raises when it is down."""

import redis.asyncio
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
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url,
        decode_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=REPLY_TIMEOUT_S,
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    return client
