"""Brings a database to the schema of this version: numbered .sql files, each applied once, in order."""

import asyncio
import hashlib
import re
from importlib import resources
from typing import Final

import asyncpg
import msgspec

from common.store.database import Connection

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCK: Final = 0x7468726F7567686C
"""The advisory lock of migrations ("throughl"): one process at a time migrates a database."""

_LOCK_TIMEOUT_S: Final = 2.0
_LOCK_PAUSE_S: Final = 3.0
_LOCK_TRIES: Final = 60
"""Five minutes, in most of which the service goes on."""


class MigrationError(Exception):
    """The database was left as the last applied file left it; the message names the file and the reason."""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One file of `migrations/`. Once it was applied anywhere it never changes again."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(url: str, migrations: list[Migration] | None = None) -> list[str]:
    """Applies what is missing, as the owner that `url` names; returns the names of the files applied now.

    Safe from many processes at once, and behind a pooler: each file has a transaction, which holds the lock.
    A database that is ahead of this version is left alone. Raises MigrationError for files that contradict
    each other, the database or SQL, and what asyncpg raises when there is no connection.
    """
    migrations = load_migrations() if migrations is None else migrations
    connection = await asyncpg.connect(url, timeout=10, server_settings={"application_name": "throughline migrate"})
    try:
        applied: list[str] = []
        tries = 0
        while True:
            try:
                name = await _apply_next(connection, migrations)
            except asyncpg.LockNotAvailableError as error:
                tries += 1
                if tries == _LOCK_TRIES:
                    raise MigrationError(
                        "somebody holds a table for too long; end their transaction, then repeat"
                    ) from error
                await asyncio.sleep(_LOCK_PAUSE_S)
            else:
                if name is None:
                    return applied
                applied.append(name)
    finally:
        await connection.close(timeout=5)


def load_migrations() -> list[Migration]:
    """The package's files in order. Raises MigrationError for a file that is not named like one."""
    migrations = []
    for file in resources.files("migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name}: a migration is named like 0001_what_it_does.sql")
        migrations.append(Migration(number=int(match[1]), name=file.name, sql=file.read_text("utf-8")))
    return sorted(migrations, key=lambda migration: migration.number)


async def _apply_next(connection: Connection, migrations: list[Migration]) -> str | None:
    """Applies one file; None when nothing is left to do."""
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        # While a change waits for somebody's read to end, everybody else waits for the change.
        await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT_S * 1000:g}ms'")
        migration = _next(migrations, await _select_applied(connection))
        if migration is None:
            return None
        try:
            await connection.execute(migration.sql)
        except asyncpg.LockNotAvailableError:
            raise
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.name}: {error}") from error
        await connection.execute(
            "insert into schema_migrations (number, name, checksum) values ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.checksum,
        )
        return migration.name


async def _select_applied(connection: Connection) -> dict[int, str]:
    """Number and checksum of each applied file."""
    if await connection.fetchval("select to_regclass('schema_migrations')") is None:
        await connection.execute(
            """
            create table schema_migrations (
                number integer primary key,
                name text not null,
                checksum text not null,
                applied_at timestamptz not null default clock_timestamp()
            )
            """
        )
    rows = await connection.fetch("select number, checksum from schema_migrations")
    return {row["number"]: row["checksum"] for row in rows}


def _next(migrations: list[Migration], applied: dict[int, str]) -> Migration | None:
    """The first file that is missing. Raises MigrationError where files and database disagree."""
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(f"{migration.name}: number {expected:04} should come here; numbers have no hole")
    missing = [migration for migration in migrations if migration.number not in applied]
    for migration in migrations:
        if migration.number in applied and applied[migration.number] != migration.checksum:
            raise MigrationError(f"{migration.name}: it was changed after it had been applied to this database")
    if missing and applied and missing[0].number < max(applied):
        raise MigrationError(f"{missing[0].name}: later files were applied to this database before it")
    return missing[0] if missing else None
