"""What a worker may do while it cannot be sure of its lease."""

import asyncio
import time

from common.ids import new_id
from common.store.run_schedule import Claim
from tests.support.eventually import eventually
from worker.run.journal import finish_even_if_cancelled
from worker.run.lease import Lease


def _lease(lease_s: float) -> Lease:
    return Lease(Claim(new_id(), new_id(), 1), time.monotonic(), lease_s)


async def test_lease_is_in_doubt_after_its_local_deadline() -> None:
    """Past 0.8 of the lease without a renewal the run is suspended: told once, and no effect may start."""
    lease = _lease(0.05)
    told: list[str] = []
    lease.on_suspend = lambda: told.append("suspended")
    assert lease.active.is_set()
    await eventually(lambda: not lease.active.is_set())
    assert told == ["suspended"]
    lease.release()


async def test_renewal_in_time_keeps_the_run_going() -> None:
    """The deadline moves with each renewal, counted from when it was sent."""
    lease = _lease(10)
    before = lease.deadline
    sent_at = time.monotonic() + 1
    lease.renewed(sent_at)
    assert lease.deadline == sent_at + 8 > before
    lease.renewed(sent_at - 5)
    assert lease.deadline == sent_at + 8, "an older renewal that answers late moves nothing back"
    lease.release()


async def test_late_renewal_lets_the_run_go_on() -> None:
    """Nobody took it meanwhile, so it may continue."""
    lease = _lease(0.05)
    resumed: list[bool] = []
    lease.on_resume = lambda: resumed.append(True)
    await eventually(lambda: not lease.active.is_set())
    lease.renewed(time.monotonic() + 10)
    assert lease.active.is_set()
    assert resumed == [True]
    lease.release()


async def test_renewal_that_was_sent_too_long_ago_proves_nothing() -> None:
    """An answer that took longer than the lease does not make the run ours again."""
    lease = _lease(0.05)
    await eventually(lambda: not lease.active.is_set())
    lease.renewed(time.monotonic() - 1)
    assert not lease.active.is_set()
    lease.release()


async def test_commit_is_finished_before_its_cancellation_is_raised() -> None:
    """A cancelled run never leaves half of a commit and its events behind."""
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), []

    async def commit() -> None:
        begun.set()
        await may_end.wait()
        ended.append(True)

    task = asyncio.create_task(finish_even_if_cancelled(commit()))
    await begun.wait()
    task.cancel()
    task.cancel()
    may_end.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ended == [True]
