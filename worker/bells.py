"""The bells' hearer: arq's worker, woken by a list, each of whose jobs claims a run."""

import asyncio
from typing import Any, TypeVar, cast

import structlog
from arq.connections import ArqRedis
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from common.config import Settings
from common.model.run_state import Priority
from common.queue import JOB, QUEUES, deserialize, serialize, wake_of
from common.redis import REDIS_DOWN, open_redis_pool, tls_of
from worker.job import RunningRuns, start_run

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_BELL_WAIT_S = 5.0
_BELLS_AT_ONCE = 50
_NOTES_KEPT = 1_000


class BellWorker(Worker):
    """arq's worker for the bells of one priority, woken by a list instead of polling, and only while there is room for
    a run.

    Its jobs are short: they claim a run and hand it over. What it pops from the list it answers at once, while arq
    takes the job by half a dozen round trips; the job then finds its answer given. It outlives a Redis that goes away.
    """

    def __init__(self, runs: RunningRuns, redis: ArqRedis, priority: Priority) -> None:
        async def answer(context: dict[Any, Any], _run_id: str) -> None:
            job_id = context["job_id"]
            if job_id in self._answers:
                await self._answers.pop(job_id)
            else:
                _keep(self._taken, job_id, None)
                await start_run(runs, priority)

        job = func(cast(WorkerCoroutine, answer), name=JOB, keep_result=0, timeout=30, max_tries=1)
        super().__init__(
            functions=[job],
            queue_name=QUEUES[priority],
            redis_pool=redis,
            handle_signals=False,
            max_jobs=_BELLS_AT_ONCE,
            keep_result=0,
            job_serializer=serialize,
            job_deserializer=deserialize,
            log_results=False,
        )
        self._runs = runs
        self._priority = priority
        self._wake = wake_of(QUEUES[priority])
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._taken: dict[str, None] = {}

    async def main(self) -> None:
        """Answers bells until cancelled."""
        pause_s = 0.05
        while True:
            try:
                await self._runs.has_room()
                await self._poll_iteration()
                await self._wait_for_bell()
                pause_s = 0.05
            except REDIS_DOWN as error:
                _log.warning("queue_unreachable", error=type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 1.0)
                await self._free_places()

    async def _free_places(self) -> None:
        """arq never gives back the place of a job that Redis broke off: once none is running, all are free."""
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        self.tasks.clear()
        self.job_counter, self.sem = 0, asyncio.BoundedSemaphore(self.max_jobs + 1)

    async def _wait_for_bell(self) -> None:
        await self._runs.has_room()
        count = max(1, min(self._runs.free, _BELLS_AT_ONCE))
        heard = await self.pool.blmpop(_BELL_WAIT_S, 1, self._wake, direction="LEFT", count=count)  # type: ignore[arg-type,misc]
        if heard:
            _, job_ids = heard
            for job_id in map(bytes.decode, job_ids):
                if job_id in self._taken:  # found in the queue before it was heard
                    del self._taken[job_id]
                else:
                    _keep(self._answers, job_id, asyncio.create_task(start_run(self._runs, self._priority)))


def _keep(notes: dict[str, T], job_id: str, note: T) -> None:
    """Notes what was done about a bell, until its other half comes; another worker may have that, so not for ever."""
    notes[job_id] = note
    if len(notes) > _NOTES_KEPT:
        del notes[next(iter(notes))]


async def answer_bells(settings: Settings, runs: RunningRuns, priority: Priority) -> None:
    """Hears the bells of one priority until cancelled, or until something breaks that nobody foresaw."""
    connections = open_redis_pool(settings.queue_redis_url, tls_of(settings), reply_s=_BELL_WAIT_S * 2)
    redis = ArqRedis(connections, serialize, deserialize, default_queue_name=QUEUES[priority])
    try:
        await BellWorker(runs, redis, priority).main()
    finally:
        await redis.aclose(close_connection_pool=True)
