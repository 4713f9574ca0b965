"""When a lease is in doubt."""

import asyncio
import time

from common.ids import new_id
from common.model.run_state import Priority
from common.store.run_schedule import Claim
from worker.run.lease import Lease


async def test_lease_is_in_doubt_as_soon_as_the_process_wakes() -> None:
    """After a pause past the deadline nothing starts on the word of a timer that has had no time to fire."""
    lease = Lease(Claim(new_id(), new_id(), 1, Priority.INTERACTIVE), time.monotonic(), 0.05)
    suspended: list[bool] = []
    lease.on_suspend = lambda: suspended.append(True)
    starting = asyncio.create_task(lease.sure())
    time.sleep(0.05)
    await asyncio.sleep(0)
    assert not starting.done()
    assert suspended == [True]
    lease.renewed(time.monotonic())
    await starting
    lease.release()
