"""The bell: an arq job that says "a run is due". It carries ids only; the `runs` row is the truth.

arq's own worker polls. Ours waits on a list that ringing pushes to as well, so that a free worker wakes within a
millisecond and an idle one asks Redis for nothing. A bell that is lost costs a second: workers look for due runs.
Each priority has a queue and a list of its own, so that no bell goes to a worker that does not serve its run.
"""

import asyncio
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from redis.asyncio import Redis

from common.failpoints import failpoint
from common.ids import new_id
from common.model.run_state import Priority
from common.redis import REDIS_DOWN

QUEUES: Final = {
    Priority.INTERACTIVE: "throughline:queue",
    Priority.BACKGROUND: "throughline:queue:background",
}
JOB = "start_run"

_BELL_TTL_MS = 3_600_000
_WAKE_LENGTH = 10_000
_PATIENCE_S = 1.0
_encoder = msgspec.msgpack.Encoder(enc_hook=repr)
_log = structlog.get_logger(__name__)


def wake_of(queue: str) -> str:
    """The list that wakes a worker which waits for this queue."""
    return f"{queue}:wake"


def serialize(job: dict[str, Any]) -> bytes:
    """arq's serializer: msgpack, since pickle would run whatever somebody puts into Redis."""
    return _encoder.encode(job)


def deserialize(data: bytes) -> dict[str, Any]:
    """arq's deserializer."""
    return msgspec.msgpack.decode(data, type=dict[str, Any])


class Bell:
    """Rings for due runs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def ring(self, run_id: UUID, priority: Priority) -> None:
        """Wakes one free worker that serves this priority. Never raises for a Redis that is down, nor waits long for
        a silent one: workers find the run by themselves.
        """
        job_id = new_id().hex
        queue = QUEUES[priority]
        now = timestamp_ms()
        job = serialize_job(JOB, (str(run_id),), {}, None, now, serializer=serialize)
        try:
            await failpoint("bell.before")
            async with asyncio.timeout(_PATIENCE_S), self._redis.pipeline(transaction=True) as pipe:
                pipe.set(job_key_prefix + job_id, job, px=_BELL_TTL_MS)
                pipe.zadd(queue, {job_id: now})
                pipe.rpush(wake_of(queue), job_id)
                pipe.ltrim(wake_of(queue), -_WAKE_LENGTH, -1)
                await pipe.execute()
            await failpoint("bell.after")
        except REDIS_DOWN as error:
            _log.warning("bell_not_rung", run_id=str(run_id), error=type(error).__name__)

    async def forget_old(self) -> int:
        """Removes what rang so long ago that Redis has forgotten its job; how much. Raises one of REDIS_DOWN."""
        before = timestamp_ms() - _BELL_TTL_MS
        return sum([int(await self._redis.zremrangebyscore(queue, "-inf", before)) for queue in QUEUES.values()])
