"""What Postgres says of itself, of its roles and of the work that it holds, for whoever looks for a fault."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from common.store.database import DATABASE_DOWN, Connection

DATABASE_FAULTS = (asyncpg.PostgresError, *DATABASE_DOWN)
"""Whatever a look at the database may raise, but for ValueError: a URL that cannot be read."""

_CONNECT_S = 5.0
_SILENCE_S = 5.0


class Server(NamedTuple):
    """`places` are the connections that services may have in all; `skew_s` is how far its clock is ahead of ours."""

    version: str
    number: int
    is_read_only: bool
    places: int
    skew_s: float


class Role(NamedTuple):
    """Who the service becomes. `is_owner`: of a table of its own."""

    name: str
    is_unrestricted: bool
    is_owner: bool


class Queue(NamedTuple):
    """All workspaces together. Runs that are due, whose lease ran out, that wait; conversations that are `forgotten`:
    with a waiting run and nobody before it. Ages in seconds."""

    due: int
    oldest_due_s: float | None
    running: int
    expired: int
    oldest_expired_s: float | None
    waiting: int
    forgotten: int


class Workers(NamedTuple):
    """How many have spoken within a minute, and how many seconds ago the last one did."""

    alive: int
    silent_s: float | None


async def connect_to_look(url: str) -> Connection:
    """A connection as the URL's own role. Raises one of DATABASE_FAULTS within seconds, or ValueError."""
    connection: Connection = await asyncpg.connect(
        url,
        timeout=_CONNECT_S,
        command_timeout=_SILENCE_S,
        statement_cache_size=0,
        server_settings={"application_name": "throughline doctor"},
    )
    return connection


async def read_server(connection: Connection) -> Server:
    """The server, and its clock beside ours: as exact as half a round trip."""
    row = await connection.fetchrow(
        """
        select current_setting('server_version') as version, current_setting('server_version_num')::integer as number,
               pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean as is_read_only,
               current_setting('max_connections')::integer
                   - current_setting('superuser_reserved_connections')::integer
                   - coalesce(current_setting('reserved_connections', true)::integer, 0) as places
        """
    )
    asked = time.time()
    theirs: float = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
    return Server(**row, skew_s=theirs - (asked + time.time()) / 2)


@asynccontextmanager
async def as_service(connection: Connection, role: str) -> AsyncIterator[None]:
    """A transaction that is what the service becomes (where `role` is empty: what the URL says), and only reads.

    Nothing of it outlasts it: behind a pooler the next one may have another connection. Raises one of DATABASE_FAULTS.
    """
    async with connection.transaction(readonly=True):
        if role:
            await connection.execute("select set_config('role', $1, true)", role)
        yield


async def read_role(connection: Connection) -> Role:
    """Who it has become."""
    row = await connection.fetchrow(
        """
        select current_user::text as name, r.rolsuper or r.rolbypassrls as is_unrestricted,
               exists (select from pg_class c where c.relowner = r.oid and c.relkind in ('r', 'p')
                                                and c.relnamespace = 'public'::regnamespace) as is_owner
        from pg_roles r where r.rolname = current_user
        """
    )
    return Role(**row)


async def read_unrestricted_scheduler(connection: Connection) -> bool:
    """Whether the functions that see across workspaces belong to somebody whom no grant stops."""
    return bool(
        await connection.fetchval(
            "select rolsuper or rolbypassrls from pg_roles where rolname = 'throughline_scheduler'"
        )
    )


async def read_unprotected_tables(connection: Connection) -> list[str]:
    """The tables with a workspace for which row level security is not on, not forced or without a policy for it."""
    rows = await connection.fetch(
        """
        select c.relname::text as name
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'workspace_id'
        where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
          and not (c.relrowsecurity and c.relforcerowsecurity and exists (
              select from pg_policy p where p.polrelid = c.oid
                  and pg_get_expr(p.polqual, p.polrelid) like '%current_workspace()%'
                  and pg_get_expr(p.polwithcheck, p.polrelid) like '%current_workspace()%'))
        order by c.relname
        """
    )
    return [row["name"] for row in rows]


async def read_queue(connection: Connection) -> Queue:
    """How the work stands."""
    return Queue(**await connection.fetchrow("select * from describe_queue()"))


async def read_workers(connection: Connection) -> Workers:
    """Who is there to do it."""
    row = await connection.fetchrow(
        """
        select count(*) filter (where seen_at > clock_timestamp() - interval '60 seconds') as alive,
               extract(epoch from clock_timestamp() - max(seen_at))::float8 as silent_s
        from catalogue
        """
    )
    return Workers(**row)
