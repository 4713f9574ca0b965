"""Whether the database is as this version needs it: which migrations it has, as the service may see it."""

from typing import NamedTuple

import asyncpg
import structlog

from common.store.database import Connection, Pool
from common.store.migrate import load_migrations

_log = structlog.get_logger(__name__)


class Schema(NamedTuple):
    """Names of files: those that the database `lacks`, those that it has `beyond` this version, and those that were
    `changed` after they had been applied."""

    lacks: list[str]
    beyond: list[str]
    changed: list[str]


async def read_schema(connection: "Connection | Pool") -> Schema:
    """Compares the database with the files of this version."""
    files = load_migrations()
    try:
        rows = await connection.fetch("select number, name, checksum from schema_migrations")
    except asyncpg.UndefinedTableError:
        rows = []
    except asyncpg.InsufficientPrivilegeError:
        # It is older than the file that lets the service look: the newest one is surely missing.
        return Schema([files[-1].name], [], [])
    applied = {row["number"]: row for row in rows}
    numbers = {file.number for file in files}
    return Schema(
        [file.name for file in files if file.number not in applied],
        [row["name"] for number, row in sorted(applied.items()) if number not in numbers],
        [file.name for file in files if file.number in applied and applied[file.number]["checksum"] != file.checksum],
    )


async def find_beyond(url: str) -> list[str]:
    """The names of applied files that this version does not know, for the owner that `url` names."""
    connection = await asyncpg.connect(url, timeout=10, server_settings={"application_name": "throughline migrate"})
    try:
        return (await read_schema(connection)).beyond
    finally:
        await connection.close(timeout=5)


class SchemaGate:
    """Asks the database until it has what this version needs, and then never again. Says in the log what it lacks."""

    def __init__(self) -> None:
        self._is_open = False
        self._said: list[str] = []

    async def is_open(self, pool: Pool) -> bool:
        """Whether the service can work with this database. Raises one of DATABASE_DOWN."""
        if not self._is_open:
            schema = await read_schema(pool)
            self._is_open = not schema.lacks
            if schema.lacks and schema.lacks != self._said:
                self._said = schema.lacks
                _log.error("database_lacks_migrations", missing=schema.lacks, mend="throughline migrate")
            elif schema.beyond:
                _log.warning("database_is_of_a_newer_version", beyond=schema.beyond)
        return self._is_open
