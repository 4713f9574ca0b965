"""Connections to Postgres, and the one way to a workspace's transaction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from common.config import ConfigError, Settings

Pool: TypeAlias = asyncpg.Pool
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

DATABASE_REFUSES = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""It answers, but not to us: a password that was changed, a database or role that is not there (any more)."""

DATABASE_DOWN = (
    *DATABASE_REFUSES,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TransactionRollbackError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.QueryCanceledError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
    OSError,
    TimeoutError,
)
"""What a query raises when Postgres is gone, starting, stopping, failing over, out of places or of disk, broken, closed
to us, or too busy with somebody else's lock: try again later."""

TRANSACTION_S = 7.0
"""How long a transaction takes at most once it has a connection."""
PLACE_S = 7.0
"""How long it waits for one at most. A limit of its own: with both in one, a burst that fills the pool would leave
whoever had to queue no time to finish, and all of them would come again."""

_CONNECT_S = 5.0
_ANSWER_S = 2.0
"""How long the first statement of a transaction, which has nothing to do, may be without an answer."""
_STATEMENT_S = 5.0
_SILENCE_S = 6.0
"""Longer than Postgres lets a statement take: who has said nothing by then says nothing any more."""
_ROLLBACK_S = 1.0
_IDLE_IN_TRANSACTION_S = 5.0
_ABANDONED_S = 8.0
"""After which Postgres (17 and later) ends a transaction whose client has vanished between the parts of a statement:
it counts as active then, and no other limit ends it, nor gives its locks back.
"""
_CLOSE_S = 5.0


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """One that is thrown away when it does not answer in time.

    A connection that is cut off without a word (a failover, a firewall) looks like a slow one. But Postgres itself ends
    a statement that is slow, and says so: with a silence of _SILENCE_S, or of _ANSWER_S at the begin of a transaction,
    all others of the pool that are as old are thrown away, too.
    """

    condemn: Callable[[], Awaitable[None]] | None = None

    async def close(self, *, timeout: float | None = None) -> None:
        # Its pool does so in the background, where nobody wants to hear of a server that no longer says goodbye.
        with suppress(*DATABASE_DOWN):
            await super().close(timeout=timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        try:
            return str(await super().execute(query, *args, timeout=timeout))
        except TimeoutError:
            await self._throw_away(condemns=timeout is None)
            raise

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        try:
            await super().executemany(command, args, timeout=timeout)
        except TimeoutError:
            await self._throw_away()
            raise

    async def _execute(self, *args: Any, **options: Any) -> Any:
        try:
            return await super()._execute(*args, **options)
        except TimeoutError:
            await self._throw_away()
            raise

    async def _throw_away(self, *, condemns: bool = True) -> None:
        self.terminate()
        if condemns and self.condemn is not None:
            await self.condemn()


async def open_pool(
    settings: Settings, size: int | None = None, *, await_postgres: bool = True, idle_s: float = 300
) -> Pool:
    """A pool whose connections run as the app role. Refuses to serve as owner, superuser or BYPASSRLS.

    Raises ConfigError for a role that must not serve, and one of DATABASE_DOWN when there is no connection; without
    `await_postgres` it opens the pool all the same, and connects when somebody needs it. A connection that nobody needs
    for `idle_s` seconds is closed.
    """
    role = {"role": settings.database_role} if settings.database_role else {}
    generation = 0

    async def prepare(connection: _Connection) -> None:
        born_in = generation

        async def condemn() -> None:
            nonlocal generation
            if born_in == generation:  # younger ones than this have nothing to do with its silence
                generation += 1
                await pool.expire_connections()

        connection.condemn = condemn
        await _prepare(connection)

    pool: Pool = await asyncpg.create_pool(
        settings.database_url,
        min_size=0,
        max_size=size or settings.database_pool_size,
        connection_class=_Connection,
        statement_cache_size=settings.database_statement_cache,
        max_inactive_connection_lifetime=idle_s,
        server_settings={
            "application_name": "throughline",
            "timezone": "UTC",
            "statement_timeout": _milliseconds(_STATEMENT_S),
            # A process that is stopped or cut off inside a transaction must not hold its locks until leases end.
            "idle_in_transaction_session_timeout": _milliseconds(_IDLE_IN_TRANSACTION_S),
            # A client that has vanished gives back its place among max_connections after a minute, not after hours.
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
            **role,
        },
        timeout=_CONNECT_S,
        command_timeout=_SILENCE_S,
        init=prepare,
        reset=_keep,
    )
    try:
        await check_alive(pool)
    except DATABASE_DOWN:
        if await_postgres:
            pool.terminate()
            raise
    except BaseException:
        pool.terminate()
        raise
    return pool


class PoolUse(NamedTuple):
    """Connections of a pool: open ones, those among them that nobody uses, the most there may be, and who waits."""

    size: int
    idle: int
    limit: int
    waiting: int


def pool_use(pool: Pool) -> PoolUse:
    """How a pool is used at this moment."""
    # asyncpg tells everything but who waits: whoever found no free place stands in its queue of places.
    waiting = sum(not getter.done() for getter in pool._queue._getters)
    return PoolUse(pool.get_size(), pool.get_idle_size(), pool.get_max_size(), waiting)


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
    it waits no longer for a lock, and raises one of DATABASE_DOWN; so it does after PLACE_S without a connection, and
    TRANSACTION_S with one.
    """
    # One message for all; a UUID object and a number cannot carry SQL.
    begin = f"begin; set local app.workspace_id = '{UUID(str(workspace_id))}'"
    if lock_timeout_s is not None:
        begin += f"; set local lock_timeout = {_milliseconds(lock_timeout_s)}"
    connection = await _take(pool, begin)
    try:
        async with asyncio.timeout(TRANSACTION_S):
            try:
                yield connection
                await connection.execute("commit")
            except BaseException as error:
                await _roll_back(connection)
                if isinstance(error, asyncpg.DataError):
                    # asyncpg counts a value that does not fit its column among the errors of a lost connection.
                    raise ValueError(str(error)) from error
                raise
    finally:
        await pool.release(connection)


async def check_alive(pool: Pool) -> None:
    """One round trip; raises one of DATABASE_DOWN, at the latest after PLACE_S."""
    await pool.release(await _take(pool, "select 1"))


async def _take(pool: Pool, first: str) -> Connection:
    """One that has executed `first`, which has nothing to do. Who is silent for _ANSWER_S makes room for a new one."""
    async with asyncio.timeout(PLACE_S):
        try:
            return await _take_answering(pool, first)
        except TimeoutError:
            return await _take_answering(pool, first)


async def _take_answering(pool: Pool, first: str) -> Connection:
    connection: Connection = await pool.acquire()
    condemn = connection.condemn
    try:
        await connection.execute(first, timeout=_ANSWER_S)
    except BaseException as error:
        try:
            if isinstance(error, TimeoutError):
                await condemn()  # or the next one is of its kind
            elif isinstance(error, asyncio.CancelledError):
                await _roll_back(connection)
        finally:  # also when another cancellation comes meanwhile
            await pool.release(connection)
        raise
    return connection


async def _roll_back(connection: Connection) -> None:
    # What is reported is why it failed, not that a lost connection cannot be rolled back.
    with suppress(*DATABASE_DOWN):
        await connection.execute("rollback", timeout=_ROLLBACK_S)


async def _prepare(connection: _Connection) -> None:
    try:
        await connection.set_type_codec(
            "jsonb", encoder=_encode_json, decoder=msgspec.json.decode, schema="pg_catalog", format="text"
        )
        row = await connection.fetchrow(
            """
            select current_user as name, rolsuper or rolbypassrls as unrestricted,
                   exists (select from pg_class where relname = 'runs' and relowner = r.oid) as owner,
                   case when current_setting('server_version_num')::integer >= 170000
                        then set_config('transaction_timeout', $1, false) end as transaction_timeout
            from pg_roles r where rolname = current_user
            """,
            _milliseconds(_ABANDONED_S),
        )
    except BaseException:
        # The pool would close it in good order, and wait for a server that has gone.
        connection.terminate()
        raise
    if row is None or row["unrestricted"] or row["owner"]:
        name = row["name"] if row else "?"
        raise ConfigError(
            f"refusing to serve as {name!r}: row level security would not hold for it. "
            "Set DATABASE_ROLE=throughline_app, or log in as a member of that role that owns nothing"
        )


async def _keep(_: Connection) -> None:
    """Replaces asyncpg's reset query: all state is SET LOCAL, so a returned connection has none to reset."""


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
