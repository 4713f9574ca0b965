"""pgbouncer in transaction mode between the service and Postgres, with the settings that the documentation names."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from common.config import ConfigError, Settings
from common.ids import new_id
from common.store.database import Pool, close_pool, open_pool, workspace_transaction
from common.store.run_schedule import claim_runs, poll_runs, renew_leases, sweep_expired
from tests.support.pgbouncer import PROGRAM, documented, login_through_pgbouncer
from tests.support.seed import seed_run
from tests.support.servers import Servers
from tests.support.system import running_system

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture
async def pooled(settings: Settings, servers: Servers) -> AsyncIterator[Settings]:
    """Settings for the same database through pgbouncer."""
    async with login_through_pgbouncer(servers, settings.database_url) as url:
        yield msgspec.structs.replace(settings, database_url=url, database_statement_cache=0)


@pytest.fixture
async def pooled_pool(pooled: Settings) -> AsyncIterator[Pool]:
    """Connections of the service."""
    pool = await open_pool(pooled, size=12)
    yield pool
    await close_pool(pool)


async def test_sessions_are_shared_and_workspaces_are_not(pooled_pool: Pool) -> None:
    """A dozen connections share three sessions, statement by statement; each transaction sees its own workspace."""
    seeded = await asyncio.gather(*(seed_run(pooled_pool) for _ in range(12)))
    ids = [one.run.id for one in seeded]

    async def look(place: int) -> None:
        for _ in range(10):
            async with workspace_transaction(pooled_pool, seeded[place].workspace_id) as connection:
                assert [row["id"] for row in await connection.fetch("select id from runs")] == [ids[place]]
            assert {position.run_id for position in await poll_runs(pooled_pool, ids)} == set(ids)
            assert await renew_leases(pooled_pool, "nobody", [(ids[place], 1)], 10, wait=False) == {}
            assert await sweep_expired(pooled_pool, 10) == []
            async with pooled_pool.acquire() as connection:
                assert await connection.fetchval("select count(*) from runs") == 0

    await asyncio.gather(*map(look, range(12)))
    assert len(await claim_runs(pooled_pool, "worker", 10, 20)) == 12


async def test_row_of_another_workspace_is_refused(pooled_pool: Pool) -> None:
    """Row level security holds for the role that logs in."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with workspace_transaction(pooled_pool, new_id()) as connection:
            await connection.execute(
                "insert into conversations (workspace_id, id, created_by) values ($1, $1, 'x')", new_id()
            )


async def test_limits_are_those_of_direct_connections(pooled_pool: Pool, pool: Pool) -> None:
    """What pgbouncer does not pass on, the role has."""
    names = ("role", "timezone", "statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
    query = "select " + ", ".join(f"current_setting('{name}')" for name in names)
    assert tuple(await pooled_pool.fetchrow(query)) == tuple(await pool.fetchrow(query))


async def test_owner_is_refused_through_pgbouncer_too(pooled: Settings, servers: Servers) -> None:
    """Whoever owns the tables must not serve, whatever DATABASE_ROLE says: pgbouncer does not pass it on."""
    async with login_through_pgbouncer(servers, servers.database_url, "postgres") as url:
        with pytest.raises(ConfigError, match="refusing to serve as 'postgres'"):
            await open_pool(msgspec.structs.replace(pooled, database_url=url))


async def test_runs_complete_through_pgbouncer() -> None:
    """API and worker: every run is streamed to its end, and another workspace sees none of it."""
    async with running_system(forked=True) as system:
        owner = system.environment()["DATABASE_URL"]
        async with login_through_pgbouncer(system.servers, owner) as url:
            pooled = {"DATABASE_URL": url, "MIGRATION_DATABASE_URL": owner, "DATABASE_STATEMENT_CACHE": "0"}
            api, worker = await asyncio.gather(system.api(**pooled), system.worker(**pooled))
            client, stranger = await system.client(api), await system.client(api)
            runs = await asyncio.gather(*(client.start(f"hello {number}") for number in range(20)))
            stories = await asyncio.gather(*map(client.events, runs))
            assert [story[-1]["type"] for story in stories] == ["done"] * 20
            assert {(await stranger.http.get(f"/v1/runs/{run['id']}")).status_code for run in runs} == {404}
            for process in (api, worker):
                assert "prepared statement" not in process.output()
                assert '"level":"error"' not in process.output()


def test_documented_role_settings_are_the_documented_ones() -> None:
    """Each statement of the page is about the role that logs in."""
    statements = [line for line in documented("sql", "statement_timeout").splitlines() if line]
    assert statements
    assert all(line.startswith("alter role throughline_service set ") for line in statements)
