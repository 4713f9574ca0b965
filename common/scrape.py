"""What a process answers to Prometheus: all that it has counted, and what is read from its own objects."""

import asyncio
import time
from typing import ClassVar

import structlog
from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from common.observability.metrics import PROCESS
from common.store.database import DATABASE_DOWN, Pool, pool_use
from common.store.run_schedule import measure_queue

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
        self._queue_pool: Pool | None = None
        self._queue_read_at = float("-inf")
        self._reading_queue = asyncio.Lock()
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
        self._queue_pool, self._pools = queue, pools
        self._queue_read_at = float("-inf")

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
        async with self._reading_queue:  # who asks meanwhile shares the answer
            if self._queue_pool is not None and time.monotonic() - self._queue_read_at > _QUEUE_GOOD_FOR_S:
                await self._read_queue(self._queue_pool)
                self._queue_read_at = time.monotonic()
        return generate_latest(PROCESS) + generate_latest(self.registry)

    async def _read_queue(self, pool: Pool) -> None:
        self._queue_runs.clear()
        self._queue_oldest.clear()
        try:
            async with asyncio.timeout(_QUEUE_WAIT_S):
                depths = await measure_queue(pool)
        except DATABASE_DOWN as error:
            _log.warning("queue_not_measured", error=type(error).__name__)
            return
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
