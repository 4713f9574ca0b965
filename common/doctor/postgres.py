"""Postgres: the server, the role that the service becomes, its tables, and the work that waits in them."""

import asyncio
from urllib.parse import parse_qs, urlsplit

from common.config import Settings
from common.doctor.findings import Finding, ok, problem, warning
from common.sentinel_url import is_sentinel_url, parse_sentinel_url
from common.store.database import Connection
from common.store.diagnosis import (
    DATABASE_FAULTS,
    Queue,
    Role,
    Server,
    Workers,
    as_service,
    connect_to_look,
    read_queue,
    read_role,
    read_server,
    read_unprotected_tables,
    read_unrestricted_scheduler,
    read_workers,
)
from common.store.schema import Schema, read_schema

_OLDEST = 150000
_SKEW_S = 2.0
_LONG_S = 60.0
_BEATS = 4
"""Connections of a worker beside its pool, for heartbeats."""
_LEASES_OF_GRACE = 3


async def check_postgres(settings: Settings) -> list[Finding]:
    """All that can be said about it; of a database that cannot be reached, that, within seconds."""
    try:
        connection = await connect_to_look(settings.database_url)
    except ValueError:
        return [problem("postgres", "DATABASE_URL cannot be read", "Write it as postgresql://user:password@host/name.")]
    except DATABASE_FAULTS as error:
        says = f"no connection to {place(settings.database_url)}: {_words(error)}"
        return [problem("postgres", says, "Start it, or mend DATABASE_URL.")]
    try:
        return await _look(connection, settings)
    except DATABASE_FAULTS as error:
        return [problem("postgres", f"it broke off: {_words(error)}", "Look into its log, and ask again.")]
    finally:
        connection.terminate()


async def _look(connection: Connection, settings: Settings) -> list[Finding]:
    server = await read_server(connection)
    found = judge_server(server, place(settings.database_url))
    role = settings.database_role
    try:
        async with as_service(connection, role):
            found.append(judge_role(await read_role(connection), await read_unrestricted_scheduler(connection)))
            found.append(judge_tables(await read_unprotected_tables(connection)))
    except DATABASE_FAULTS as error:
        advice = "Run `throughline migrate` as the owner, or `grant throughline_app to <the login of DATABASE_URL>`."
        return [*found, problem("role", f"cannot become {role}: {_words(error)}", advice)]
    async with as_service(connection, role):
        schema = await read_schema(connection)
    found.append(judge_schema(schema))
    if schema.lacks:
        return found
    async with as_service(connection, role):
        workers, queue = await read_workers(connection), await read_queue(connection)
    if queue.forgotten:
        # Between an end and the promotion behind it there is a moment of which nobody has to hear.
        await asyncio.sleep(2 * settings.sweep_s)
        async with as_service(connection, role):
            queue = await read_queue(connection)
    return [*found, judge_connections(server, workers, settings), judge_workers(workers), *judge_queue(queue, settings)]


def judge_server(server: Server, where: str) -> list[Finding]:
    """Its version, its clock, and whether it takes writes."""
    check = "postgres"
    found = []
    if server.number < _OLDEST:
        found.append(problem(check, f"version {server.version} at {where}", "Use Postgres 15 or newer."))
    if server.is_read_only:
        advice = "Name the primary in DATABASE_URL, or add target_session_attrs=read-write to it."
        found.append(problem(check, f"{where} takes no writes", advice))
    if abs(server.skew_s) > _SKEW_S:
        says = f"its clock is {abs(server.skew_s):.1f} s {'ahead of' if server.skew_s > 0 else 'behind'} this machine's"
        found.append(
            warning(check, says, "Let both follow the same time server: tokens and tickets end by these clocks.")
        )
    return found or [ok(check, f"version {server.version} at {where}, clocks {abs(server.skew_s) * 1000:.0f} ms apart")]


def judge_role(role: Role, unrestricted_scheduler: bool) -> Finding:
    """Whether row level security holds for the service, and for what sees across workspaces."""
    check = "role"
    if role.is_unrestricted or role.is_owner:
        why = "owns tables" if role.is_owner else "is a superuser or has BYPASSRLS"
        advice = "Set DATABASE_ROLE=throughline_app, or log in as a member of that role that owns nothing."
        return problem(check, f"{role.name} {why}: row level security would not hold, and nothing starts", advice)
    if unrestricted_scheduler:
        advice = "Run `alter role throughline_scheduler nosuperuser nobypassrls`."
        return problem(check, "throughline_scheduler is a superuser or has BYPASSRLS", advice)
    return ok(check, f"{role.name}, for which row level security holds")


def judge_schema(schema: Schema) -> Finding:
    """Whether the migrations are those of this version."""
    check = "migrations"
    if schema.lacks:
        says = f"missing: {', '.join(schema.lacks)}"
        return problem(check, says, "Run `throughline migrate`; API and workers wait for it.")
    if schema.changed:
        advice = "Install a released version: files that were applied never change."
        return problem(check, f"not the files that were applied: {', '.join(schema.changed)}", advice)
    if schema.beyond:
        says = f"the database is of a newer version: {', '.join(schema.beyond)}"
        return warning(check, says, "Install that version here, unless it is being rolled out or back.")
    return ok(check, "all applied, none unknown")


def judge_tables(unprotected: list[str]) -> Finding:
    """Whether every table keeps workspaces apart."""
    check = "row level security"
    if unprotected:
        advice = "Give each `enable` and `force row level security` and the policy `workspace`, as in migrations/0001."
        return problem(check, f"does not hold for {', '.join(unprotected)}", advice)
    return ok(check, "forced on every table with a workspace")


def judge_connections(server: Server, workers: Workers, settings: Settings) -> Finding:
    """Whether the pools of the workers that are there, and of one API, fit into max_connections."""
    check = "connections"
    wanted = workers.alive * (settings.database_pool_size + _BEATS) + settings.database_pool_size
    says = f"{workers.alive} workers and one API may open {wanted} of {server.places}"
    if wanted > server.places:
        return warning(check, says, "Lower DATABASE_POOL_SIZE, raise max_connections, or put pgbouncer in between.")
    return ok(check, says)


def judge_workers(workers: Workers) -> Finding:
    """Whether somebody is there to run anything."""
    check = "workers"
    if not workers.alive:
        last = (
            "none has ever spoken" if workers.silent_s is None else f"the last one spoke {workers.silent_s:.0f} s ago"
        )
        return problem(check, f"none is alive: {last}", "Start `python -m worker`; its first lines say what it lacks.")
    return ok(check, f"{workers.alive} alive")


def judge_queue(queue: Queue, settings: Settings) -> list[Finding]:
    """Whether runs wait for longer than they should, or are stuck."""
    check = "runs"
    found = []
    if (queue.oldest_due_s or 0) > _LONG_S:
        says = f"{queue.due} are due, the oldest for {queue.oldest_due_s:.0f} s"
        found.append(warning(check, says, "Start more workers, or raise WORKER_MAX_RUNS."))
    if (queue.oldest_expired_s or 0) > _LEASES_OF_GRACE * settings.lease_s:
        says = f"{queue.expired} run under a lease that ran out up to {queue.oldest_expired_s:.0f} s ago"
        advice = "Start a worker: each takes such runs over within two leases; one that does not says why in its log."
        found.append(problem(check, says, advice))
    if queue.forgotten:
        says = f"{queue.forgotten} conversations have a waiting run and nobody before it"
        found.append(problem(check, says, "Start a worker: each promotes them within a second or so."))
    return found or [ok(check, f"{queue.running} running, {queue.due} due, {queue.waiting} waiting; none is stuck")]


def place(url: str) -> str:
    """Where a URL leads, without who goes there."""
    try:
        if is_sentinel_url(url):
            sentinels = parse_sentinel_url(url)
            return f"{sentinels.master} behind {len(sentinels.sentinels)} sentinels"
        parts = urlsplit(url)
        host = parts.hostname or ", ".join(parse_qs(parts.query).get("host", [])) or parts.path
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "its URL"
    return f"{host}{port}{parts.path if host != parts.path else ''}"


def _words(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
