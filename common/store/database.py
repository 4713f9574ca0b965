"""Connections to Postgres, and the one way to a workspace's transaction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from common.config import ConfigError, Settings

Pool: TypeAlias = asyncpg.Pool
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

DATABASE_DOWN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.QueryCanceledError,
    OSError,
    TimeoutError,
)
"""What a query raises when Postgres is gone, starting, stopping, failing over, out of places or too busy with
somebody else's lock: try again later."""

_IDLE_IN_TRANSACTION = "10s"
_CLOSE_S = 5.0


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
        server_settings={
            "application_name": "throughline",
            "timezone": "UTC",
            # A process that is stopped or cut off inside a transaction must not hold its locks for ever.
            "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION,
            **role,
        },
        timeout=5,
        command_timeout=30,
        init=_init,
        reset=_keep,
    )


async def close_pool(pool: Pool) -> None:
    """Closes what is idle, and within seconds what is not: a query that hangs holds up nobody's end."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


@asynccontextmanager
async def workspace_transaction(
    pool: Pool, workspace_id: UUID, *, lock_timeout_s: float | None = None
) -> AsyncIterator[Connection]:
    """A transaction that sees `workspace_id` alone; commits on a clean exit, rolls back on any exception.

    Raises ValueError for a value that its column cannot take: repeating that would not help. With `lock_timeout_s`
    it waits no longer for a lock, and raises one of DATABASE_DOWN.
    """
    # One message for all; a UUID object and a number cannot carry SQL.
    begin = f"begin; set local app.workspace_id = '{UUID(str(workspace_id))}'"
    if lock_timeout_s is not None:
        begin += f"; set local lock_timeout = {round(lock_timeout_s * 1000)}"
    async with pool.acquire() as connection:
        try:
            await connection.execute(begin)
            yield connection
        except BaseException as error:
            # What is reported is why it failed, not that a lost connection cannot be rolled back.
            with suppress(*DATABASE_DOWN):
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
