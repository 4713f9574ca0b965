"""The runs of this worker: a bell or the sweep claims, each claim becomes a task, draining ends them in good order."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

import structlog

from common.failpoints import failpoint
from common.model.run_state import Priority
from common.store.database import DATABASE_DOWN
from common.store.run_schedule import Claim, claim_runs
from worker.next_run import ring_for_next
from worker.run.execution import Execution, Stop
from worker.run.lease import Lease
from worker.run.resources import Resources

_log = structlog.get_logger(__name__)
_HAND_BACK_S = 5.0
_CLAIMS_AT_ONCE = 100


class RunningRuns:
    """At most `worker_max_runs` executions at once, of the priorities that this worker serves."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._executions: dict[UUID, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._priorities = resources.settings.worker_priorities
        self._wanted: Counter[Priority] = Counter()
        self._claiming = asyncio.Lock()
        self.due = asyncio.Event()
        """Set by whoever knows of runs that are due; `take_due_runs` looks for them then, rather than at its time."""
        self._room = asyncio.Event()
        self._room.set()
        self._draining = False

    @property
    def running(self) -> int:
        """How many runs are in hand."""
        return len(self._tasks)

    @property
    def draining(self) -> bool:
        """Whether no more runs are claimed, for good."""
        return self._draining

    @property
    def free(self) -> int:
        """How many more runs may be claimed now."""
        return 0 if self._draining else self._resources.settings.worker_max_runs - len(self._tasks)

    async def has_room(self) -> None:
        """Waits until at least one run may be claimed."""
        await self._room.wait()

    async def answer_bell(self, priority: Priority) -> None:
        """Claims one due run, if there is one; bells that ring while a claim is under way share the next one."""
        self._wanted[priority] += 1
        async with self._claiming:
            wanted, self._wanted = self._wanted, Counter()
            claimed = await self._claim(wanted.total(), self._priorities)
            # Where a more urgent run took the place of the one that rang, the other's own bell may be with a worker
            # that cannot serve this one: nobody would ring for it again.
            missed = wanted - claimed
            if claimed.total() == wanted.total() and missed:
                await self._claim(missed.total(), missed)

    async def claim_due(self) -> None:
        """Claims as many due runs as there is room for: what nobody rang for."""
        async with self._claiming:
            while (limit := min(self.free, _CLAIMS_AT_ONCE)) > 0:
                claimed = await self._claim(limit, self._priorities)
                if claimed.total() < limit:
                    break

    async def _claim(self, wanted: int, priorities: Iterable[Priority]) -> Counter[Priority]:
        """How many it claimed of each priority."""
        limit = min(wanted, self.free)
        if limit <= 0:
            return Counter()
        sent_at = time.monotonic()
        resources = self._resources
        claims = await claim_runs(resources.pool, resources.owner, resources.settings.lease_s, limit, priorities)
        if claims:
            await failpoint("claim.after")
        for claim in claims:
            self._start(claim, sent_at)
        return Counter(claim.priority for claim in claims)

    def cancel(self, run_id: UUID) -> None:
        """Cancels the run, if it is one of ours."""
        if execution := self._executions.get(run_id):
            execution.stop(Stop.CANCEL)

    async def drain(self, grace_s: float) -> None:
        """Claims no more; lets current steps finish within `grace_s` seconds, then cuts them; hands all runs back.

        What is still there a few seconds later (without Postgres nothing can be handed back) is left to its lease.
        """
        self._draining = True
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s), self._claiming:
                pass  # a claim that was under way has begun its runs
        for execution in self._executions.values():
            execution.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for execution in list(self._executions.values()):
            execution.stop(Stop.DRAIN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_HAND_BACK_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=1)
            if left:
                _log.warning("runs_left_to_their_leases", runs=len(left))

    def _start(self, claim: Claim, claimed_at: float) -> None:
        lease = Lease(claim, claimed_at, self._resources.settings.lease_s)
        execution = Execution(self._resources, lease)
        self._executions[claim.run_id] = execution
        self._resources.keeper.hold(lease)
        task = asyncio.create_task(self._execute(execution, lease), name=f"run {claim.run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self.free <= 0:
            self._room.clear()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.free <= 0:
            # Bells that this worker took while it had no place were for runs that may still be waiting.
            self.due.set()
        self._tasks.discard(task)
        if self.free > 0:
            self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("execution_broke", error=repr(error), exc_info=error)

    async def _execute(self, execution: Execution, lease: Lease) -> None:
        try:
            await execution.run()
        finally:
            self._resources.keeper.drop(lease)
            if self._executions.get(lease.run_id) is execution:
                del self._executions[lease.run_id]
        await ring_for_next(self._resources, lease.workspace_id)


async def start_run(runs: RunningRuns, priority: Priority) -> None:
    """Answers a bell: something is due. Which run is claimed, the database decides."""
    try:
        await runs.answer_bell(priority)
    except DATABASE_DOWN as error:
        _log.warning("bell_not_answered", priority=str(priority), error=type(error).__name__)
