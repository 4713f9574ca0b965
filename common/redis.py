"""Connections to Redis (or Valkey), and what it raises when it is down."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import redis.asyncio
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

from common.config import ConfigError, Settings, redact_url
from common.observability.metrics import REDIS_CONNECTS
from common.sentinel_url import SentinelUrl, is_sentinel_url, parse_sentinel_url

REDIS_DOWN = (RedisError, OSError)
"""What a command raises when Redis is gone, starting, full, read-only or silent: try again later.

An error answer (OOM, LOADING, READONLY, MISCONF …) is among them: it never says anything about a run.
"""

CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 5.0


class Tls(NamedTuple):
    """How the certificate of a `rediss://` server is checked: by the authorities in `ca_file` (PEM; empty: the
    system's) and for the server's name, or not at all."""

    verify: bool = True
    ca_file: str = ""


_CHECKED = Tls()


def tls_of(settings: Settings) -> Tls:
    """As the settings want it."""
    return Tls(settings.redis_tls_verify, settings.redis_tls_ca)


def open_redis(url: str, tls: Tls = _CHECKED) -> redis.asyncio.Redis:
    """A client that connects on first use. Bytes in, bytes out; close it with `aclose()`.

    A command is never sent twice behind the caller's back, and waits at most REPLY_TIMEOUT_S, also one that
    blocks: give `BRPOP` a shorter timeout of its own, and use `get_message(timeout=…)` instead of `listen()`.
    Closed, it stays closed: what was under way then fails, and opens no connection that nobody would close.
    Raises ConfigError for a URL that names no server.
    """
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(open_redis_pool(url, tls))
    return client


def open_redis_pool(url: str, tls: Tls = _CHECKED, *, reply_s: float = REPLY_TIMEOUT_S) -> ConnectionPool:
    """What `open_redis` takes its connections from; a reply may take `reply_s`.

    Behind a `redis+sentinel://` URL each new connection goes to the server that is the master then.
    """
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": reply_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        **_tls_options(url, tls),
    }
    try:
        if is_sentinel_url(url):
            pool = _open_sentinel_pool(parse_sentinel_url(url), tls, options)
        else:
            pool = _ClosingPool.from_url(url, **options)
    except ValueError as error:
        raise ConfigError(f"REDIS_URL, {redact_url(url)!r}: {error}") from None
    pool.connection_class = type("Connection", (_OfOneClient, _CancellableWrites, pool.connection_class), {})
    return pool


def _tls_options(url: str, tls: Tls) -> dict[str, Any]:
    parts = urlsplit(url)
    if not parts.scheme.startswith("rediss"):
        return {}
    if tls.ca_file and not Path(tls.ca_file).is_file():
        raise ConfigError(f"REDIS_TLS_CA: there is no file {tls.ca_file}")
    # redis-py would check no name, and fail on one to be checked where the URL itself wants no check.
    verify = tls.verify and parse_qs(parts.query).get("ssl_cert_reqs") != ["none"]
    return {
        "ssl_cert_reqs": "required" if verify else "none",
        "ssl_check_hostname": verify,
        "ssl_ca_certs": tls.ca_file or None,
    }


def _open_sentinel_pool(url: SentinelUrl, tls: Tls, options: dict[str, Any]) -> ConnectionPool:
    manager = Sentinel([])  # type: ignore[no-untyped-call]
    manager.sentinels = [
        redis.asyncio.Redis.from_pool(open_redis_pool(sentinel, tls, reply_s=CONNECT_TIMEOUT_S))
        for sentinel in url.sentinels
    ]
    connection_class = SentinelManagedSSLConnection if url.tls else SentinelManagedConnection
    pool: ConnectionPool = _SentinelPool(  # type: ignore[no-untyped-call]
        url.master, manager, connection_class=connection_class, **url.login, **options
    )
    return pool


class _ClosingPool(ConnectionPool):
    async def disconnect(self, inuse_connections: bool = True) -> None:
        if inuse_connections:  # Which is how redis-py closes a client.
            self.connection_class.client_is_closed = True  # type: ignore[attr-defined]
        await super().disconnect(inuse_connections)


class _SentinelPool(_ClosingPool, SentinelConnectionPool):
    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


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
