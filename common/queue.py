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
from redis.commands.core import AsyncScript

from common.failpoints import failpoint
from common.ids import new_id
from common.model.run_state import Priority
from common.redis import REDIS_DOWN

QUEUES: Final = {
    Priority.INTERACTIVE: "throughline:queue",
    Priority.BACKGROUND: "throughline:queue:background",
}
JOB = "start_run"

_RING = """#!lua
-- KEYS: job, queue, wake list; ARGV: the job, its id, now and how long it lives (milliseconds), the list's length
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('RPUSH', KEYS[3], ARGV[2])
redis.call('LTRIM', KEYS[3], -tonumber(ARGV[5]), -1)
"""

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
        self._ring: AsyncScript = redis.register_script(_RING)

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
            async with asyncio.timeout(_PATIENCE_S):
                await self._ring(
                    [job_key_prefix + job_id, queue, wake_of(queue)], [job, job_id, now, _BELL_TTL_MS, _WAKE_LENGTH]
                )
            await failpoint("bell.after")
        except REDIS_DOWN as error:
            _log.warning("bell_not_rung", run_id=str(run_id), error=type(error).__name__)

    async def forget_old(self) -> int:
        """Removes what rang so long ago that Redis has forgotten its job; how much. Raises one of REDIS_DOWN."""
        before = timestamp_ms() - _BELL_TTL_MS
        return sum([int(await self._redis.zremrangebyscore(queue, "-inf", before)) for queue in QUEUES.values()])
