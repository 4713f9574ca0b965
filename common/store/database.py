"""Connections to Postgres, and the one way to a workspace's transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from common.config import ConfigError, Settings, redact_url

Pool: TypeAlias = asyncpg.Pool
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

DATABASE_DOWN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    OSError,
    TimeoutError,
)
"""What a query raises when Postgres is gone, starting, stopping or out of places: try again later."""


async def open_pool(settings: Settings, size: int | None = None) -> Pool:
    """A pool whose connections run as the app role. Refuses to serve as owner, superuser or BYPASSRLS.

    Raises ConfigError for a role that must not serve, and what asyncpg raises when there is no connection.
    """
    role = {"role": settings.database_role} if settings.database_role else {}
    return await asyncpg.create_pool(
        settings.database_url,
        min_size=1,
        max_size=size or settings.database_pool_size,
        statement_cache_size=settings.database_statement_cache,
        max_inactive_connection_lifetime=300,
        server_settings={"application_name": "throughline", "timezone": "UTC", **role},
        timeout=5,
        command_timeout=30,
        init=_init,
        reset=_keep,
    )


@asynccontextmanager
async def workspace_transaction(pool: Pool, workspace_id: UUID) -> AsyncIterator[Connection]:
    """A transaction that sees `workspace_id` alone; commits on a clean exit, rolls back on any exception.

    Raises ValueError for a value that its column cannot take: repeating that would not help.
    """
    async with pool.acquire() as connection:
        # One message for both; a UUID object cannot carry SQL.
        await connection.execute(f"begin; set local app.workspace_id = '{UUID(str(workspace_id))}'")
        try:
            yield connection
        except BaseException as error:
            if not connection.is_closed():
                await connection.execute("rollback")
            if isinstance(error, asyncpg.DataError):
                # asyncpg counts a value that does not fit its column among the errors of a lost connection.
                raise ValueError(str(error)) from error
            raise
        else:
            await connection.execute("commit")


async def check_alive(pool: Pool) -> None:
    """One round trip; raises one of DATABASE_DOWN."""
    async with pool.acquire(timeout=2) as connection:
        await connection.fetchval("select 1", timeout=2)


def clean(text: str) -> str:
    """Text that Postgres stores: NUL and lone surrogates, as models and tools may send them, become U+FFFD."""
    if text.isascii():
        return text.replace("\x00", "\ufffd")
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_json(value: Any) -> Any:
    """`value` with every string in it, keys too, as `clean` leaves it."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_json(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_json(item) for key, item in value.items()}
    return value


async def _init(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=_encode_json, decoder=msgspec.json.decode, schema="pg_catalog", format="text"
    )
    row = await connection.fetchrow(
        """
        select current_user as name, rolsuper or rolbypassrls as unrestricted,
               exists (select from pg_class where relname = 'runs' and relowner = r.oid) as owner
        from pg_roles r where rolname = current_user
        """
    )
    if row is None or row["unrestricted"] or row["owner"]:
        name = row["name"] if row else "?"
        raise ConfigError(
            f"refusing to serve as {name!r}: row level security would not hold for it. "
            "Set DATABASE_ROLE=throughline_app, or log in as a member of that role that owns nothing"
        )


async def _keep(_: Connection) -> None:
    """Replaces asyncpg's reset query: all state is SET LOCAL, so a returned connection has none to reset."""


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


__all__ = [
    "DATABASE_DOWN",
    "Connection",
    "Pool",
    "Row",
    "check_alive",
    "clean",
    "clean_json",
    "open_pool",
    "redact_url",
    "workspace_transaction",
]
