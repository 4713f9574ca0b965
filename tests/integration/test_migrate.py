"""Migrations: once each, in order, from many processes, as an owner who is no superuser."""

import asyncio
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from common.config import load_settings
from common.devserver.cli import main
from common.store import migrate as migrate_module
from common.store.database import open_pool
from common.store.migrate import Migration, MigrationError, load_migrations, migrate
from tests.support.servers import Servers, running_servers

_MIGRATE = """
import asyncio, sys
from common.store.migrate import migrate
print(*asyncio.run(migrate(sys.argv[1])))
"""
NAMES = [migration.name for migration in load_migrations()]


@pytest.fixture
async def empty_url(servers: Servers) -> AsyncIterator[str]:
    """A database without a single table."""
    url = await servers.create_database(template=None)
    yield url
    await servers.drop_database(url)


async def test_migrate_twice_applies_each_file_once(empty_url: str) -> None:
    """The second call finds nothing to do."""
    assert await migrate(empty_url) == NAMES
    assert await migrate(empty_url) == []


async def test_migrate_from_many_connections_applies_each_file_once(empty_url: str) -> None:
    """Of 20 calls at once each file is applied by exactly one, and all succeed."""
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(20)))
    assert sorted(name for names in applied for name in names) == NAMES


async def test_migrate_from_many_processes_applies_each_file_once(empty_url: str) -> None:
    """The same with processes of their own, as a rolling deployment starts them."""
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _MIGRATE, empty_url, stdout=asyncio.subprocess.PIPE)
        for _ in range(4)
    ]
    outputs = [(await process.communicate())[0].decode().split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert sorted(name for names in outputs for name in names) == NAMES


async def test_migrate_with_changed_file_is_refused(empty_url: str) -> None:
    """A file that was applied never changes: the error names it, and nothing is applied after it."""
    first = Migration(number=1, name="0001_a.sql", sql="create table a ()")
    await migrate(empty_url, [first])
    changed = Migration(number=1, name="0001_a.sql", sql="create table a (id integer)")
    second = Migration(number=2, name="0002_b.sql", sql="create table b ()")
    with pytest.raises(MigrationError, match=r"0001_a.sql: it was changed"):
        await migrate(empty_url, [changed, second])
    assert await _fetch_tables(empty_url) == {"a", "schema_migrations"}


async def test_migrate_lets_others_work_while_a_table_is_held(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads for long (a backup does) holds up the migration, and nobody else with it."""
    monkeypatch.setattr(migrate_module, "_LOCK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(migrate_module, "_LOCK_PAUSE_S", 0.1)
    await migrate(empty_url)
    reader, other = await asyncpg.connect(empty_url), await asyncpg.connect(empty_url)
    change = Migration(number=len(NAMES) + 1, name="more.sql", sql="alter table runs add column more integer")
    async with reader.transaction():
        await reader.execute("select from runs")
        migrating = asyncio.create_task(migrate(empty_url, [*load_migrations(), change]))
        for _ in range(5):
            async with asyncio.timeout(5), other.transaction():
                await other.execute("lock table runs in row exclusive mode")
            await asyncio.wait({migrating}, timeout=0.3)
            assert not migrating.done()
    assert await migrating == ["more.sql"]
    await reader.close()
    await other.close()


async def test_migrate_with_hole_in_numbers_is_refused(empty_url: str) -> None:
    """A missing number is an error before anything is applied."""
    files = [
        Migration(number=1, name="0001_a.sql", sql="create table a ()"),
        Migration(number=3, name="0003_c.sql", sql="create table c ()"),
    ]
    with pytest.raises(MigrationError, match=r"0003_c.sql: number 0002 should come here"):
        await migrate(empty_url, files)
    assert await _fetch_tables(empty_url) == set()


async def test_migrate_with_failing_statement_leaves_nothing_of_its_file(empty_url: str) -> None:
    """A file is applied as a whole or not at all; the files before it stay."""
    files = [
        Migration(number=1, name="0001_a.sql", sql="create table a ()"),
        Migration(number=2, name="0002_b.sql", sql="create table b (); select 1 / 0"),
    ]
    with pytest.raises(MigrationError, match=r"0002_b.sql: division by zero"):
        await migrate(empty_url, files)
    assert await _fetch_tables(empty_url) == {"a", "schema_migrations"}


async def test_migrate_of_newer_database_leaves_it_alone(empty_url: str) -> None:
    """An older version of the service starts on a database that a newer one has migrated."""
    first = Migration(number=1, name="0001_a.sql", sql="create table a ()")
    second = Migration(number=2, name="0002_b.sql", sql="create table b ()")
    await migrate(empty_url, [first, second])
    assert await migrate(empty_url, [first]) == []


async def test_command_on_a_newer_database_says_what_it_does_not_know(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`throughline migrate` of a release that is taken back succeeds, and names what stays as it is."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("insert into schema_migrations values (9000, '9000_later.sql', '')")
    await connection.close()
    monkeypatch.setenv("MIGRATION_DATABASE_URL", database_url)
    assert await asyncio.to_thread(main, ["migrate"]) == 0
    assert "of a newer version, which has 9000_later.sql" in capsys.readouterr().out


async def test_migrate_as_owner_with_createrole_makes_a_database_that_serves() -> None:
    """On a fresh server an owner who is no superuser makes the roles, migrates, and can serve."""
    async with running_servers(migrated=False) as servers:
        await servers.execute("create role owner login createrole")
        await servers.execute("create database owned owner owner")
        await _migrate_and_serve(servers.url_of("owned", "owner"))


async def test_migrate_as_owner_without_any_right_uses_the_roles_made_for_it(servers: Servers) -> None:
    """Where nobody may make roles, an administrator has made them and granted them to the owner."""
    await servers.execute("create role plain_owner login")
    await servers.execute("create database plainly_owned owner plain_owner")
    await servers.execute("grant throughline_app, throughline_scheduler to plain_owner")
    try:
        await _migrate_and_serve(servers.url_of("plainly_owned", "plain_owner"))
    finally:
        await servers.execute("drop database plainly_owned with (force)")
        await servers.execute("drop role plain_owner")


async def test_migrate_without_roles_or_the_right_to_make_them_says_so(servers: Servers) -> None:
    """The error names the file and what Postgres refused; nothing is applied."""
    await servers.execute("create role stranger login")
    await servers.execute("create database strange owner stranger")
    url = servers.url_of("strange", "stranger")
    try:
        with pytest.raises(MigrationError, match=r"0001_.*permission denied"):
            await migrate(url)
        assert await _fetch_tables(url) == set()
    finally:
        await servers.execute("drop database strange with (force)")
        await servers.execute("drop role stranger")


async def test_migrate_names_whom_existing_model_calls_were_made_for(servers: Servers) -> None:
    """An owner for whom row level security holds fills in what calls of two workspaces take from their runs."""
    await servers.execute("create role metering_owner login")
    await servers.execute("create database metered owner metering_owner")
    await servers.execute("grant throughline_app, throughline_scheduler to metering_owner")
    url = servers.url_of("metered", "metering_owner")
    try:
        await migrate(url, [migration for migration in load_migrations() if migration.number < 7])
        connection = await asyncpg.connect(url)
        for number in (1, 2):
            await connection.execute(_A_METERED_RUN.replace("#", str(number)))
        await migrate(url)
        for number in (1, 2):
            await connection.execute(f"set role throughline_app; set app.workspace_id = '{_UUID}{number}'")
            [row] = await connection.fetch("select conversation_id::text, agent_id::text, created_by from model_calls")
            assert tuple(row) == (f"{_UUID}{number}", f"{_UUID}9", f"user {number}")
        await connection.close()
    finally:
        await servers.execute("drop database metered with (force)")
        await servers.execute("drop role metering_owner")


_UUID = "00000000-0000-0000-0000-00000000000"
_A_METERED_RUN = f"""
    begin;
    set local role throughline_app;
    set local app.workspace_id = '{_UUID}#';
    insert into conversations (workspace_id, id, created_by) values ('{_UUID}#', '{_UUID}#', 'x');
    insert into runs (workspace_id, id, conversation_id, trigger_message_id, turn, agent_id, provider, model,
                      max_steps, state, created_by)
    values ('{_UUID}#', '{_UUID}#', '{_UUID}#', '{_UUID}#', 1, '{_UUID}9', 'p', 'm', 1, 'queued', 'user #');
    insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state)
    values ('{_UUID}#', '{_UUID}#', '{_UUID}#', 1, 1, 'p', 'm', 'started');
    commit
"""


async def _migrate_and_serve(url: str) -> None:
    assert await migrate(url) == NAMES
    pool = await open_pool(load_settings({"DATABASE_URL": url}))
    try:
        assert await pool.fetch("select * from claim_runs('worker', '10 s', 1)") == []
    finally:
        await pool.close()


async def _fetch_tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
        return {row["tablename"] for row in rows}
    finally:
        await connection.close()
