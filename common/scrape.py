"""What a process answers to Prometheus: all that it has counted, and what is read from its own objects."""

import asyncio
from functools import partial
from typing import ClassVar

import structlog
from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from common.observability.metrics import PROCESS
from common.recent import Recent
from common.store.database import DATABASE_DOWN, Pool, pool_use
from common.store.run_schedule import QueueDepth, measure_queue

_QUEUE_GOOD_FOR_S = 5.0
_QUEUE_WAIT_S = 2.0
_log = structlog.get_logger(__name__)


class Scrape:
    """One for each server of figures, so that several in one process do not mix what is theirs."""

    MEDIA_TYPE: ClassVar[str] = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._pools: dict[str, Pool] = {}
        self._queue: Recent[list[QueueDepth]] | None = None
        self._pool_connections = self.gauge("throughline_pool_connections", "Connections to Postgres", "pool", "state")
        self._pool_limit = self.gauge("throughline_pool_limit", "Connections to Postgres at most", "pool")
        self._pool_waiting = self.gauge("throughline_pool_waiting", "Who waits for a connection to Postgres", "pool")
        self._queue_runs = self.gauge(
            "throughline_queue_runs",
            "Runs of the whole system, the same at every process: `due` may be claimed, `delayed` not yet, `held` not "
            "while their workspace has as many running as it may, `waiting` stand behind another of their conversation",
            "priority",
            "state",
        )
        self._queue_oldest = self.gauge(
            "throughline_queue_oldest_due_seconds",
            "For how long the oldest run that may be claimed has been so, the same at every process; 0 without one",
            "priority",
        )

    def watch(self, queue: Pool, **pools: Pool) -> None:
        """Shows these pools from now on, and the queue as it is read over `queue`."""
        self._pools = pools
        self._queue = Recent(partial(_read_queue, queue), _QUEUE_GOOD_FOR_S)

    def gauge(self, name: str, what: str, *labels: str) -> Gauge:
        """A figure that goes up and down; `set_function` says from what it is read."""
        return Gauge(name, what, labels, registry=self.registry)

    async def render(self) -> bytes:
        """All figures in Prometheus' text form. Without Postgres those of the queue are absent."""
        for name, pool in self._pools.items():
            use = pool_use(pool)
            self._pool_connections.labels(name, "in_use").set(use.size - use.idle)
            self._pool_connections.labels(name, "idle").set(use.idle)
            self._pool_limit.labels(name).set(use.limit)
            self._pool_waiting.labels(name).set(use.waiting)
        if self._queue is not None:
            self._show_queue(await self._queue.get())
        return generate_latest(PROCESS) + generate_latest(self.registry)

    def _show_queue(self, depths: list[QueueDepth]) -> None:
        self._queue_runs.clear()
        self._queue_oldest.clear()
        for depth in depths:
            for state, runs in (
                ("due", depth.due),
                ("held", depth.held),
                ("delayed", depth.queued - depth.due - depth.held),
                ("running", depth.running),
                ("waiting", depth.waiting),
            ):
                self._queue_runs.labels(depth.priority, state).set(runs)
            self._queue_oldest.labels(depth.priority).set(depth.oldest_due_s or 0)


async def _read_queue(pool: Pool) -> list[QueueDepth]:
    """Nothing where Postgres does not answer, which is kept as an answer would be: it is not asked the more for it."""
    try:
        async with asyncio.timeout(_QUEUE_WAIT_S):
            return await measure_queue(pool)
    except DATABASE_DOWN as error:
        _log.warning("queue_not_measured", error=type(error).__name__)
        return []
