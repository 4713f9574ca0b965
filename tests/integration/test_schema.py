"""Whether the database is as this version needs it."""

import asyncio

import asyncpg
import msgspec
import structlog

from common.config import Settings
from common.store.database import Pool
from common.store.migrate import load_migrations, migrate
from common.store.schema import SchemaGate, read_schema
from tests.support.eventually import eventually
from tests.support.servers import Servers
from worker.main import _open_pool_when_up


async def test_migrated_database_lacks_nothing(pool: Pool) -> None:
    """The service's own role may look."""
    assert await read_schema(pool) == ([], [], [])


async def test_differences_are_told_by_the_names_of_files(pool: Pool, database_url: str) -> None:
    """A file that is missing, one of a newer version, one that was changed after it had been applied."""
    first, second, *_ = load_migrations()
    owner = await asyncpg.connect(database_url)
    await owner.execute("delete from schema_migrations where number = $1", first.number)
    await owner.execute("update schema_migrations set checksum = 'other' where number = $1", second.number)
    await owner.execute("insert into schema_migrations values (9000, '9000_later.sql', '')")
    await owner.close()
    assert await read_schema(pool) == ([first.name], ["9000_later.sql"], [second.name])


async def test_database_of_a_newer_version_is_served_with_a_warning(pool: Pool, database_url: str) -> None:
    """Migrations leave room for the version before them: two of them serve while a release is rolled out or back."""
    owner = await asyncpg.connect(database_url)
    await owner.execute("insert into schema_migrations values (9000, '9000_later.sql', '')")
    await owner.close()
    gate = SchemaGate()
    with structlog.testing.capture_logs() as logs:
        assert await gate.is_open(pool)
        assert await gate.is_open(pool)
    assert [(log["event"], log["beyond"]) for log in logs] == [("database_is_of_a_newer_version", ["9000_later.sql"])]


async def test_worker_on_a_database_without_migrations_waits_for_them(settings: Settings, servers: Servers) -> None:
    """It says what is missing instead of failing at each claim, and goes on by itself once that is applied."""
    url = await servers.create_database(template=None)
    with structlog.testing.capture_logs() as logs:
        opening = asyncio.create_task(
            _open_pool_when_up(msgspec.structs.replace(settings, database_url=url), asyncio.Event())
        )
        await eventually(lambda: [log for log in logs if log["event"] == "database_lacks_migrations"])
    await migrate(url)
    pool = await asyncio.wait_for(opening, 10)
    assert pool is not None
    await pool.close()
    await servers.drop_database(url)
