"""One heartbeat for all leases of a worker, on real rows."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from common.config import Settings
from common.model.run_state import CancelReason
from common.store.database import Pool, open_pool, workspace_transaction
from common.store.run_transitions import request_cancel
from tests.support.eventually import eventually
from tests.support.probed_pool import ProbedPool
from tests.support.seed import Seeded, seed_run
from tests.support.servers import Servers
from tests.support.tcp_proxy import Mode, TcpProxy
from tests.support.worker_life import OWNER, claim_lease, crash
from worker.run.lease import BEATS_AT_ONCE, Lease, LeaseKeeper


@pytest.fixture
def keeper(settings: Settings, pool: Pool) -> LeaseKeeper:
    """A keeper that beats often; its leases are as long as ever."""
    return LeaseKeeper(pool, OWNER, msgspec.structs.replace(settings, heartbeat_s=0.02), pool)


class Held:
    """A claimed run whose keeper tells what becomes of it."""

    def __init__(self, seeded: Seeded, lease: Lease) -> None:
        self.seeded = seeded
        self.lease = lease
        self.told: list[str] = []
        lease.on_lost = lambda: self.told.append("lost")
        lease.on_cancel = lambda: self.told.append("cancel")

    async def renewals(self, count: int) -> None:
        """Waits until the lease has been renewed so often from now on."""
        for _ in range(count):
            await self._renewal()

    async def _renewal(self) -> None:
        before = self.lease.deadline
        await eventually(lambda: self.lease.deadline > before)


@asynccontextmanager
async def _held(keeper: LeaseKeeper, pool: Pool, settings: Settings) -> AsyncIterator[Held]:
    seeded = await seed_run(pool)
    held = Held(seeded, await claim_lease(pool, settings.lease_s))
    keeper.hold(held.lease)
    yield held
    keeper.drop(held.lease)


@asynccontextmanager
async def _beating(keeper: LeaseKeeper) -> AsyncIterator[None]:
    beating = asyncio.create_task(keeper.run())
    yield
    beating.cancel()
    await asyncio.wait({beating})


async def test_locked_run_does_not_stop_the_renewal_of_others(
    keeper: LeaseKeeper, pool: Pool, settings: Settings
) -> None:
    """While somebody holds one row the other leases are renewed; the locked run's is as soon as it is free."""
    async with _held(keeper, pool, settings) as locked, _held(keeper, pool, settings) as free, _beating(keeper):
        async with workspace_transaction(pool, locked.seeded.workspace_id) as connection:
            await connection.execute("select from runs where id = $1 for update", locked.seeded.run.id)
            await free.renewals(5)
            assert locked.told == []
        await locked.renewals(1)
        assert locked.told == free.told == []


async def test_run_that_its_worker_claims_again_is_lost_to_the_older_claim(
    keeper: LeaseKeeper, pool: Pool, settings: Settings
) -> None:
    """The older execution is told at once, and the newer lease is the one that is renewed."""
    async with _held(keeper, pool, settings) as older:
        await crash(pool, older.seeded)
        newer = Held(older.seeded, await claim_lease(pool, settings.lease_s))
        keeper.hold(newer.lease)
        assert (older.told, newer.told) == (["lost"], [])
        keeper.drop(older.lease)
        async with _beating(keeper):
            await newer.renewals(2)
        keeper.drop(newer.lease)


async def test_run_that_was_swept_is_told_by_the_heartbeat(keeper: LeaseKeeper, pool: Pool, settings: Settings) -> None:
    """A renewal that is refused, with no lock in its way, means that the run is lost."""
    async with _held(keeper, pool, settings) as held:
        await crash(pool, held.seeded)
        async with _beating(keeper):
            await eventually(lambda: "lost" in held.told)


async def test_cancel_that_nobody_signalled_is_found_by_the_heartbeat(
    keeper: LeaseKeeper, pool: Pool, settings: Settings
) -> None:
    """A request whose signal was lost reaches the run all the same."""
    async with _held(keeper, pool, settings) as held:
        async with workspace_transaction(pool, held.seeded.workspace_id) as connection:
            await request_cancel(connection, held.seeded.run.id, CancelReason.USER)
        async with _beating(keeper):
            await eventually(lambda: "cancel" in held.told)
        assert "lost" not in held.told


async def test_leases_outlive_dead_connections(settings: Settings, pool: Pool, servers: Servers) -> None:
    """All connections fall silent: long before it is known that they are dead, a heartbeat over a new one arrives."""
    settings = msgspec.structs.replace(settings, lease_s=2, heartbeat_s=0.5)
    async with TcpProxy(servers.database_url) as proxy:
        proxied = msgspec.structs.replace(settings, database_url=proxy.url_of(settings.database_url))
        runs_pool, beats_pool = await open_pool(proxied), await open_pool(proxied, BEATS_AT_ONCE)
        keeper = LeaseKeeper(runs_pool, OWNER, settings, beats_pool)
        async with _held(keeper, pool, settings) as held, _beating(keeper):
            suspended = []
            held.lease.on_suspend = lambda: suspended.append(time.monotonic())
            for mode in (Mode.BLACK_HOLE, Mode.RESET, Mode.HALF_OPEN):
                await held.renewals(2)
                proxy.switch(mode, new=False)
            await held.renewals(2)
            assert not suspended
            assert not held.told
        runs_pool.terminate()
        beats_pool.terminate()


async def test_heartbeat_that_is_not_answered_holds_up_no_other(pool: Pool, settings: Settings) -> None:
    """The next ones are sent all the same, and renew."""
    probed = ProbedPool(pool)
    keeper = LeaseKeeper(pool, OWNER, msgspec.structs.replace(settings, heartbeat_s=0.02), probed.as_pool)
    unanswered = asyncio.Event()

    async def never() -> None:
        unanswered.set()
        await asyncio.Event().wait()

    probed.after("renew_leases", never)
    async with _held(keeper, pool, settings) as held, _beating(keeper):
        async with asyncio.timeout(5):
            await unanswered.wait()
        await held.renewals(2)
