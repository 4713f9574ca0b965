"""Requests a second, counted by all APIs together; each counts for itself while Redis is away."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from uuid import UUID

import structlog
from redis.asyncio import Redis

from api.limits.buckets import TAKE, Bucket, Buckets
from common.eventlog.script_pipeline import ScriptPipeline
from common.model.limits import Limits
from common.redis import REDIS_DOWN

_PATIENCE_S = 0.25
_ASK_AGAIN_S = 1.0

_log = structlog.get_logger(__name__)


class RequestCounter:
    """Never raises, and waits a moment for Redis at most: what it cannot count together, it counts here.

    Whoever has sent too much to this process alone is refused without asking Redis.
    """

    def __init__(self, redis: Redis) -> None:
        self._shared = ScriptPipeline(redis, TAKE)
        self._here = Buckets()
        self._is_away = False
        self._ask_at = 0.0

    async def take(self, workspace_id: UUID, user: str, limits: Limits) -> float:
        """0 for a request that may be answered, which is counted; else after how many seconds one may be."""
        buckets = _buckets(workspace_id, user, limits)
        if not buckets:
            return 0.0
        wait_s = self._here.take(buckets, time.monotonic())
        if wait_s > 0:
            return wait_s
        wait_s = await self._ask(buckets)
        if wait_s > 0:
            self._here.give_back(buckets)
        return wait_s

    async def _ask(self, buckets: Sequence[Bucket]) -> float:
        now = time.monotonic()
        if self._is_away and now < self._ask_at:
            return 0.0
        self._ask_at = now + _ASK_AGAIN_S  # One at a time finds out whether Redis is back.
        keys, arguments = [b.key for b in buckets], [number for b in buckets for number in (b.rate, b.burst)]
        try:
            async with asyncio.timeout(_PATIENCE_S):
                milliseconds = await self._shared.call(keys, arguments)
        except REDIS_DOWN as error:
            if not self._is_away:
                _log.warning("requests_counted_here", error=type(error).__name__)
            self._is_away = True
            return 0.0
        if self._is_away:
            _log.info("requests_counted_together")
        self._is_away = False
        return milliseconds / 1000


def _buckets(workspace_id: UUID, user: str, limits: Limits) -> list[Bucket]:
    # The braces keep both in one hash slot.
    key = f"limit:{{{workspace_id}}}:requests"
    buckets = []
    if limits.requests_per_s:
        buckets.append(Bucket(key, limits.requests_per_s, limits.requests_burst or limits.requests_per_s))
    if limits.user_requests_per_s:
        name = hashlib.blake2b(user.encode(), digest_size=16).hexdigest()
        burst = limits.user_requests_burst or limits.user_requests_per_s
        buckets.append(Bucket(f"{key}:{name}", limits.user_requests_per_s, burst))
    return buckets
