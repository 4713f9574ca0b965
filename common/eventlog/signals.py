"""Signals between processes. Each may be lost: what it announces is in Postgres before it is sent."""

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

import redis.asyncio
import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError

from common.eventlog.keys import cancel_channel
from common.redis import REDIS_DOWN

_PING_EVERY_S = 5.0
_RECONNECT_AFTER_S = 0.5

_log = structlog.get_logger(__name__)


async def publish_cancel(redis: redis.asyncio.Redis, run_id: UUID) -> None:
    """Tells all workers that `run_id` is asked to cancel. Raises one of REDIS_DOWN."""
    await redis.publish(cancel_channel(), str(run_id))


async def subscribe_cancels(redis: redis.asyncio.Redis) -> AsyncGenerator[UUID, None]:
    """The runs that are asked to cancel from now on, until the caller stops iterating (then `aclose()` it).

    Survives a Redis that goes away and comes back; what is published meanwhile is missed.
    """
    while True:
        try:
            async with redis.pubsub() as pubsub:
                await pubsub.subscribe(cancel_channel())
                async for data in _messages(pubsub):
                    run_id = _parse(data)
                    if run_id is not None:
                        yield run_id
        except REDIS_DOWN:
            await asyncio.sleep(_RECONNECT_AFTER_S)


def _parse(data: bytes) -> UUID | None:
    """None for what nobody of ours has published."""
    try:
        return UUID(data.decode())
    except ValueError:
        _log.warning("signal_malformed", data=repr(data[:100]))
        return None


async def _messages(pubsub: PubSub) -> AsyncGenerator[bytes]:
    """What is published; raises one of REDIS_DOWN on a connection that only looks open."""
    pinged = False
    while True:
        message = await pubsub.get_message(timeout=_PING_EVERY_S)
        if message is None:
            if pinged:
                raise ConnectionError("no answer to a ping")
            await pubsub.ping()
        pinged = message is None
        if message is not None and message["type"] == "message":
            yield message["data"]
