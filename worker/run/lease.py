"""Owning a run: the lease of one run, and the heartbeat that renews all leases of a worker.

Only the database's clock says when a lease ends. Here a monotonic deadline, taken before the last successful
renewal was sent, says when we may no longer be sure: past it the run is suspended, neither emitting nor starting an
effect, until a renewal succeeds or is refused.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

import structlog

from common.config import Settings
from common.failpoints import failpoint
from common.store.database import DATABASE_DOWN, Pool
from common.store.run_schedule import Claim, renew_leases
from worker.metrics import SUSPENSIONS

_log = structlog.get_logger(__name__)
BEATS_AT_ONCE = 4
"""How many heartbeats may be without an answer."""

_CERTAIN = 0.8
_BLOCKED_EXIT = 70


class Lease:
    """One run's ownership. `attempt` changes only under `lock`, which every fenced commit holds; the claim never."""

    def __init__(self, claim: Claim, claimed_at: float, lease_s: float) -> None:
        self.workspace_id = claim.workspace_id
        self.run_id = claim.run_id
        self.claimed_attempt = self.attempt = claim.attempt
        self.claimed_at = claimed_at
        self.lease_s = lease_s
        self.lock = asyncio.Lock()
        self.active = asyncio.Event()
        self.on_suspend: Callable[[], None] = _nothing
        self.on_resume: Callable[[], None] = _nothing
        self.on_cancel: Callable[[], None] = _nothing
        self.on_lost: Callable[[], None] = _nothing
        self.deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.renewed(claimed_at)

    def renewed(self, sent_at: float) -> None:
        """A renewal that was sent at `sent_at` (monotonic seconds) has succeeded."""
        self.deadline = max(self.deadline, sent_at + self.lease_s * _CERTAIN)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.deadline - time.monotonic(), self._suspend)
        if not self.active.is_set() and self.deadline > time.monotonic():
            self.active.set()
            self.on_resume()

    @property
    def held(self) -> bool:
        """Whether it is known to be ours at this moment."""
        return self.active.is_set() and time.monotonic() < self.deadline

    async def sure(self) -> None:
        """Waits while the lease is in doubt. The clock says so: after a pause of the process no timer has fired yet."""
        if self.active.is_set() and time.monotonic() >= self.deadline:
            self.release()
            self._suspend()
        await self.active.wait()

    def release(self) -> None:
        """Stops the clock; the run is over for this worker."""
        if self._timer is not None:
            self._timer.cancel()

    def _suspend(self) -> None:
        self.active.clear()
        self.on_suspend()
        SUSPENSIONS.inc()
        _log.warning("run_suspended", run_id=str(self.run_id), attempt=self.attempt)


class LeaseKeeper:
    """Renews every lease of this worker in one statement per heartbeat.

    `beats_pool` has BEATS_AT_ONCE connections for that alone, so that no heartbeat waits behind the runs' own work.
    """

    def __init__(self, pool: Pool, owner: str, settings: Settings, beats_pool: Pool) -> None:
        self._pool = pool
        self._beats_pool = beats_pool
        self._owner = owner
        self._heartbeat_s = settings.heartbeat_s
        self._lease_s = settings.lease_s
        self._leases: dict[UUID, Lease] = {}
        self._beats: set[asyncio.Task[bool]] = set()
        self._singly: dict[Lease, asyncio.Task[None]] = {}
        self._ticked_at = time.monotonic()

    def hold(self, lease: Lease) -> None:
        """Renews this lease from now on; an older claim of the same run is lost."""
        older = self._leases.get(lease.run_id)
        self._leases[lease.run_id] = lease
        if older is not None:
            older.on_lost()

    def drop(self, lease: Lease) -> None:
        """Renews it no longer; the run has been settled, handed back or lost."""
        lease.release()
        if self._leases.get(lease.run_id) is lease:
            del self._leases[lease.run_id]

    async def run(self) -> None:
        """Beats until cancelled; the watchdog thread lives as long."""
        stopped = threading.Event()
        watchdog = threading.Thread(target=self._watch, args=(stopped,), name="lease-watchdog", daemon=True)
        watchdog.start()
        ticking = asyncio.create_task(self._tick())
        try:
            while True:
                beat = self._start_beat()
                await asyncio.sleep(self._heartbeat_s / 2)
                if not self._beats and (beat is None or beat.result()):
                    await asyncio.sleep(self._heartbeat_s / 2)
        finally:
            stopped.set()
            ending = {ticking, *self._beats, *self._singly.values()}
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)

    def _start_beat(self) -> asyncio.Task[bool] | None:
        """A beat waits for no other: one that went over a dead connection learns so too late for its leases."""
        if not self._leases or len(self._beats) >= BEATS_AT_ONCE:
            return None
        beat = asyncio.create_task(self._beat(), name="heartbeat")
        self._beats.add(beat)
        beat.add_done_callback(self._beats.discard)
        return beat

    async def _beat(self) -> bool:
        """Whether Postgres has answered."""
        try:
            return await self._renew_all(list(self._leases.values()))
        except DATABASE_DOWN as error:
            _log.warning("heartbeat_failed", error=type(error).__name__, runs=len(self._leases))
        except Exception:
            # A worker that stops beating loses all its runs; the next beat may succeed.
            _log.exception("heartbeat_broke")
        return False

    async def _renew_all(self, leases: list[Lease]) -> bool:
        sent_at = time.monotonic()
        claims = [(lease.run_id, lease.claimed_attempt) for lease in leases]
        renewed = await renew_leases(self._beats_pool, self._owner, claims, self._lease_s, wait=False)
        await failpoint("heartbeat.after")
        for lease in leases:
            if self._leases.get(lease.run_id) is not lease:
                continue  # dropped meanwhile
            if lease.run_id in renewed:
                lease.renewed(sent_at)
                if renewed[lease.run_id]:
                    lease.on_cancel()
            elif lease not in self._singly and len(self._beats) == 1:  # else the other beat may hold the row
                renewing = asyncio.create_task(self._renew_singly(lease))
                self._singly[lease] = renewing
                renewing.add_done_callback(partial(self._renewed_singly, lease))
        return True

    async def _renew_singly(self, lease: Lease) -> None:
        """A row that was locked was skipped: wait for it before concluding anything. The next beat does not wait."""
        sent_at = time.monotonic()
        claim = [(lease.run_id, lease.claimed_attempt)]
        try:
            renewed = await renew_leases(self._pool, self._owner, claim, self._lease_s, wait=True)
        except DATABASE_DOWN:
            return
        if self._leases.get(lease.run_id) is not lease:
            return  # dropped meanwhile
        if lease.run_id in renewed:
            lease.renewed(sent_at)
            if renewed[lease.run_id]:
                lease.on_cancel()
        else:
            lease.on_lost()

    def _renewed_singly(self, lease: Lease, _: asyncio.Task[None]) -> None:
        self._singly.pop(lease, None)

    async def _tick(self) -> None:
        while True:
            self._ticked_at = time.monotonic()
            await asyncio.sleep(self._heartbeat_s / 3)

    def _watch(self, stopped: threading.Event) -> None:
        """Ends the process when the event loop is stuck past a deadline: it could not even suspend its runs."""
        tick_s = self._heartbeat_s / 3
        while not stopped.wait(0.5):
            now, ticked_at = time.monotonic(), self._ticked_at
            blocked = now - ticked_at > 2 * tick_s
            if blocked and any(ticked_at < lease.deadline < now for lease in list(self._leases.values())):
                os.write(2, b"throughline worker: the event loop is blocked past a lease; exiting\n")
                os._exit(_BLOCKED_EXIT)


def _nothing() -> None:
    pass
