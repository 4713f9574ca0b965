"""Transactions of one workspace, and connections that die."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import asyncpg
import msgspec
import pytest

from common.config import ConfigError, Settings
from common.ids import new_id
from common.store import database
from common.store.database import (
    DATABASE_DOWN,
    PLACE_S,
    Pool,
    close_pool,
    open_pool,
    pool_use,
    workspace_transaction,
)
from tests.support.eventually import eventually
from tests.support.probed_pool import ProbedPool
from tests.support.seed import seed_run
from tests.support.servers import Servers
from tests.support.tcp_proxy import Mode, TcpProxy


async def test_value_that_does_not_fit_is_no_outage(pool: Pool) -> None:
    """What repeating cannot mend must not look like a database that is away, or it is repeated for ever."""
    with pytest.raises(ValueError, match="expected str") as raised:
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute("select $1::text", 5)
    assert not isinstance(raised.value, DATABASE_DOWN)


async def test_failed_transaction_leaves_nothing_and_its_connection_usable(pool: Pool) -> None:
    """An exception rolls back, and the next transaction on that connection sees its own workspace alone."""
    seeded = await seed_run(pool)
    with pytest.raises(RuntimeError):
        async with workspace_transaction(pool, seeded.workspace_id) as connection:
            await connection.execute("delete from runs")
            raise RuntimeError
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        assert await connection.fetchval("select count(*) from runs") == 1
    async with workspace_transaction(pool, new_id()) as connection:
        assert await connection.fetchval("select count(*) from runs") == 0


async def test_without_a_workspace_nothing_is_seen(pool: Pool) -> None:
    """Also after a transaction that had one, on the same connection."""
    seeded = await seed_run(pool)
    async with pool.acquire() as connection:
        await connection.execute(f"begin; set local app.workspace_id = '{seeded.workspace_id}'; commit")
        for table in ("agents", "conversations", "messages", "runs", "model_calls", "tool_calls", "tickets"):
            assert await connection.fetchval(f"select count(*) from {table}") == 0


async def test_row_of_another_workspace_is_refused(pool: Pool) -> None:
    """Row level security checks what is written, too."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute(
                "insert into conversations (workspace_id, id, created_by) values ($1, $1, 'x')", new_id()
            )


async def test_service_refuses_to_be_the_owner(settings: Settings) -> None:
    """Row level security would not hold for a superuser or for the tables' owner."""
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    with pytest.raises(ConfigError, match="row level security"):
        await open_pool(Settings(**{**values, "database_role": ""}))


@pytest.fixture
async def proxied(servers: Servers, settings: Settings) -> AsyncIterator[tuple[TcpProxy, Pool]]:
    """Connections that a test can break."""
    async with TcpProxy(servers.database_url) as proxy:
        url = proxy.url_of(settings.database_url)
        pool = await open_pool(msgspec.structs.replace(settings, database_url=url))
        yield proxy, pool
        pool.terminate()


@pytest.mark.parametrize("mode", [Mode.BLACK_HOLE, Mode.HALF_OPEN, Mode.LOSE_REPLIES])
async def test_transaction_moves_to_a_new_connection(proxied: tuple[TcpProxy, Pool], mode: Mode) -> None:
    """Where the old ones have died without a word, the first transaction notices within seconds, the next at once."""
    proxy, pool = proxied
    await _use_at_once(pool, 5)
    proxy.switch(mode, new=False)
    assert await _seconds(_use_at_once(pool, 1)) < 4
    assert await _seconds(_use_at_once(pool, 5)) < 1


async def test_transaction_over_a_dead_connection_does_not_hang(proxied: tuple[TcpProxy, Pool]) -> None:
    """Silence in its middle ends it after a while, and nothing waits for what cannot come."""
    proxy, pool = proxied
    with pytest.raises(TimeoutError):
        async with workspace_transaction(pool, new_id()) as connection:
            proxy.switch(Mode.BLACK_HOLE)
            begun = time.monotonic()
            await connection.execute("select 1")
    assert 5 < time.monotonic() - begun < 7


async def test_transaction_without_postgres_has_a_limit(proxied: tuple[TcpProxy, Pool]) -> None:
    """Old and new connections are silent: all who wait for one learn so in time, however many they are."""
    proxy, pool = proxied
    await _use_at_once(pool, 5)
    proxy.switch(Mode.BLACK_HOLE)
    begun = time.monotonic()
    for ended in await asyncio.gather(*(_use_at_once(pool, 1) for _ in range(40)), return_exceptions=True):
        assert isinstance(ended, DATABASE_DOWN)
    assert time.monotonic() - begun < PLACE_S + 2
    proxy.switch(Mode.PASS)
    assert await _seconds(_use_at_once(pool, 5)) < 1


async def test_waiting_for_a_place_takes_nobodys_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that fills the pool is served one after the other: who had to queue has as long as everybody."""
    monkeypatch.setattr(database, "TRANSACTION_S", 0.4)
    pool = await open_pool(settings, 1)

    async def work() -> None:
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute("select pg_sleep(0.1)")

    assert await _seconds(asyncio.gather(*(work() for _ in range(8)))) > 0.7
    await pool.close()


async def test_full_pool_of_dead_connections_is_renewed(proxied: tuple[TcpProxy, Pool], settings: Settings) -> None:
    """With all of them dead at once, each makes room for its own successor."""
    proxy, pool = proxied
    size = settings.database_pool_size
    await _use_at_once(pool, size)
    proxy.switch(Mode.BLACK_HOLE, new=False)
    assert await _seconds(_use_at_once(pool, size)) < 4


async def test_query_over_a_dead_connection_does_not_hang(proxied: tuple[TcpProxy, Pool]) -> None:
    """One without a transaction is given up as well, and its connection with it."""
    proxy, pool = proxied
    proxy.switch(Mode.BLACK_HOLE, new=False)
    with pytest.raises(TimeoutError):
        await pool.fetch("select 1", timeout=0.5)
    assert await _seconds(pool.fetch("select 1")) < 1


async def test_slow_statement_is_no_dead_connection(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres itself ends it and says so; the connection is kept."""
    monkeypatch.setattr(database, "_STATEMENT_S", 0.2)
    pool = await open_pool(settings, 1)
    before = await pool.fetchval("select pg_backend_pid()")
    with pytest.raises(asyncpg.QueryCanceledError):
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute("select pg_sleep(5)")
    assert await pool.fetchval("select pg_backend_pid()") == before
    await pool.close()


async def test_transaction_that_idles_lets_go_of_its_locks(pool: Pool) -> None:
    """Before a lease ends: whoever was cut off in the middle of a transaction must not hold up others for longer."""
    async with workspace_transaction(pool, new_id()) as connection:
        limit = await connection.fetchval("select current_setting('idle_in_transaction_session_timeout')::interval")
    assert limit.total_seconds() < Settings().lease_s


async def test_transaction_cut_off_within_a_statement_lets_go_of_its_locks(
    settings: Settings, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that vanishes between the parts of a statement counts as active; Postgres ends it all the same."""
    monkeypatch.setattr(database, "_ABANDONED_S", 0.5)
    seeded = await seed_run(pool)
    row = f"select from runs where id = '{seeded.run.id}' for update nowait"
    theirs = await open_pool(settings, 1)
    with suppress(*DATABASE_DOWN):
        async with workspace_transaction(theirs, seeded.workspace_id) as vanished:
            await vanished.execute(row)
            await vanished.prepare("select $1::text")  # parsed, and never carried out

            async def is_free() -> bool:
                async with workspace_transaction(pool, seeded.workspace_id) as connection:
                    state = await connection.fetchval(
                        "select string_agg(state, ' ') from pg_stat_activity where query = 'select $1::text'"
                    )
                    assert state in ("active", None)
                    try:
                        await connection.execute(row)
                    except asyncpg.LockNotAvailableError:
                        return False
                    return True

            assert not await is_free()
            await eventually(is_free, 4)
    await close_pool(theirs)


async def _use_at_once(pool: Pool, count: int) -> None:
    async def use() -> None:
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute("select pg_sleep(0.01)")

    await asyncio.gather(*(use() for _ in range(count)))


async def _seconds(work: Awaitable[object]) -> float:
    begun = time.monotonic()
    await work
    return time.monotonic() - begun


async def test_use_of_a_pool_tells_who_waits(settings: Settings) -> None:
    """Open connections, idle ones, and who has found none."""
    pool = await open_pool(settings, size=1)
    try:
        assert pool_use(pool) == (1, 1, 1, 0)
        async with pool.acquire():
            waiting = asyncio.create_task(pool.fetchval("select 1"))
            await eventually(lambda: pool_use(pool) == (1, 0, 1, 1))
        assert await waiting == 1
        assert pool_use(pool) == (1, 1, 1, 0)
    finally:
        await pool.close()


async def test_connection_comes_back_from_whoever_is_cancelled_twice(pool: Pool) -> None:
    """While its first statement is under way, and again while that is taken back: the pool gets its place back."""
    probed = ProbedPool(pool)
    hangs = asyncio.Semaphore(0)

    async def hang() -> None:
        hangs.release()
        await asyncio.Event().wait()

    async def begin() -> None:
        async with workspace_transaction(probed.as_pool, new_id()):
            raise AssertionError("never begun")

    probed.after("begin", hang)
    probed.after("rollback", hang)
    task = asyncio.create_task(begin())
    for _ in range(2):
        await hangs.acquire()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    use = pool_use(pool)
    assert use.size == use.idle
