"""A pool of worker processes of which any may be killed; what it held is known, and when it went on elsewhere."""

import asyncio
import signal
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from tests.support.processes import RunningProcess
from tests.support.system import System
from tests.support.watcher import Watcher


class Orphan(NamedTuple):
    """A run whose worker was killed at `at` (monotonic seconds) in `attempt`."""

    run_id: UUID
    attempt: int
    at: float


class Fleet:
    """`size` workers, all with the same settings."""

    def __init__(self, system: System, **settings: str) -> None:
        self.workers: list[RunningProcess] = []
        self.orphans: list[Orphan] = []
        self._system = system
        self._settings = settings

    async def grow(self, size: int) -> None:
        """So many more workers, started together."""
        self.workers += await asyncio.gather(*(self._system.worker(**self._settings) for _ in range(size)))

    async def kill(self, worker: RunningProcess) -> list[Orphan]:
        """`kill -9`; what the worker was running then."""
        await worker.stop(signal.SIGKILL)
        now = time.monotonic()
        # Not before: until its last moment it claims, and those runs are nobody's for a whole lease, too.
        orphans = await self._held_by(worker)
        self.workers.remove(worker)
        killed = [Orphan(run_id, attempt, now) for run_id, attempt in orphans]
        self.orphans += killed
        return killed

    async def _held_by(self, worker: RunningProcess) -> list[tuple[UUID, int]]:
        rows = await self._system.rows(
            "select id, attempt from runs where state = 'running' and lease_owner like $1", f"%:{worker.pid}:%"
        )
        return [(row["id"], row["attempt"]) for row in rows]


def recovery_seconds(orphans: Sequence[Orphan], watchers: Iterable[Watcher]) -> list[float]:
    """For each orphan the seconds until its client saw its next attempt; none for one that had just ended.

    An attempt that was killed before its client saw it was at work too, at its end at the latest.
    """
    of_run = {watcher.run["id"]: watcher for watcher in watchers}
    seconds = []
    for orphan in orphans:
        at_work = [other.at for other in orphans if other.run_id == orphan.run_id and other.attempt > orphan.attempt]
        for seen in of_run[str(orphan.run_id)].seen:
            frame_attempt = int((seen.frame.id or "0-0").rpartition(":")[2].split("-")[0])
            if seen.at > orphan.at and frame_attempt > orphan.attempt:
                at_work.append(seen.at)
                break
        if at_work:
            seconds.append(min(at_work) - orphan.at)
    return seconds
