"""The version before goes on working on today's schema and today's log, while its processes are replaced."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from common.eventlog.keys import events_key, head_key, live_channel
from common.eventlog.log import AppendResult, Batch, EventLog, LogEvent
from common.eventlog.publication import parse_publication
from common.ids import EventId, new_id
from common.model.run_state import Priority
from common.queue import JOB, QUEUES, Bell, wake_of
from common.store.migrate import Migration, load_migrations, migrate
from tests.frozen import NEWEST
from tests.frozen.samples import read_samples
from tests.support.servers import Servers

_APPLIED: dict[str, str] = json.loads((NEWEST / "migrations.json").read_text("utf-8"))
_STATEMENTS: list[str] = json.loads((NEWEST / "statements.json").read_text("utf-8"))
_FROZEN_SCRIPT = (NEWEST / "append.lua").read_text("utf-8")
_COLUMNS = """
    select table_name, column_name, udt_name, is_nullable, column_default from information_schema.columns
    where table_schema = 'public'
"""
_FUNCTIONS = """
    select p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' as name,
           pg_get_function_result(p.oid) as result
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'public' and has_function_privilege('throughline_app', p.oid, 'execute')
"""


@pytest.fixture
async def before(servers: Servers) -> AsyncIterator[asyncpg.Connection]:
    """The database of the version before, as its owner."""
    url = await servers.create_database(None)
    await migrate(url, _migrations_before())
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()
    await servers.drop_database(url)


@pytest.fixture
async def today(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Today's, as its owner."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def _migrations_before() -> list[Migration]:
    return [one for one in load_migrations() if one.name in _APPLIED]


def test_applied_migrations_are_as_they_were() -> None:
    """What the version before has applied somewhere is never edited: its databases would refuse to go on."""
    assert {one.name: one.checksum for one in _migrations_before()} == _APPLIED


async def test_statements_of_the_version_before_still_work(
    before: asyncpg.Connection, today: asyncpg.Connection
) -> None:
    """Each statement of the old code takes and gives on today's schema what it did, and its role still may."""
    assert len(_STATEMENTS) > 100
    problems = []
    for sql in _STATEMENTS:
        try:
            if await _interface(today, sql) != await _interface(before, sql):
                problems.append(f"other types: {sql}")
        except asyncpg.PostgresError as error:
            problems.append(f"{error}: {sql}")
    assert problems == []


async def test_columns_of_the_version_before_are_kept(before: asyncpg.Connection, today: asyncpg.Connection) -> None:
    """Old code reads and writes what it knows, and leaves out what it does not: that has a default, or may be null."""
    then, now = await _columns(before), await _columns(today)
    assert {name: now.get(name, ("gone",))[:2] for name in then} == {name: column[:2] for name, column in then.items()}
    tables = {table for table, _ in then}
    needed = [name for name, (_, nullable, default) in now.items() if nullable == "NO" and default is None]
    assert [name for name in needed if name[0] in tables and name not in then] == []


async def test_functions_of_the_version_before_are_kept(before: asyncpg.Connection, today: asyncpg.Connection) -> None:
    """Under the same name and with the same arguments, none of them ambiguous by a newer one beside it."""
    then = {row["name"]: row["result"] for row in await before.fetch(_FUNCTIONS)}
    now = {row["name"]: row["result"] for row in await today.fetch(_FUNCTIONS)}
    assert {name: now.get(name) for name in then} == then
    assert any(name.startswith("claim_runs(p_owner text, p_lease interval, p_limit integer)") for name in then)


async def test_log_of_the_version_before_is_continued(redis: Redis) -> None:
    """A worker of today goes on where one of yesterday stopped, and yesterday's is fenced; and the other way round."""
    log, run_id = EventLog(redis, 60), new_id()
    keys = (events_key(run_id), head_key(run_id), live_channel(run_id))

    async def old_append(attempt: int, first: int, *events: bytes) -> Any:
        arguments: tuple[Any, ...] = (attempt, first, first + len(events) - 1, 60, 0, 1, *events)
        return await redis.eval(_FROZEN_SCRIPT, 3, *keys, *arguments)  # type: ignore[misc]

    assert await old_append(1, 1, b"a", b"b") == AppendResult.OK.value
    assert await log.append(run_id, Batch(1, 3, (b"c",))) is AppendResult.OK
    assert await old_append(1, 4, b"d") == AppendResult.OK.value
    assert await log.append(run_id, Batch(2, 1, (b"e",))) is AppendResult.OK
    assert await old_append(1, 5, b"late") == AppendResult.FENCED.value
    assert await old_append(3, 1, b"f") == AppendResult.OK.value
    assert await log.append(run_id, Batch(2, 2, (b"late",))) is AppendResult.FENCED
    assert await log.read_after(run_id, None, 10) == [
        LogEvent(EventId(*event_id), data)
        for event_id, data in zip(
            [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (3, 1)], (b"a", b"b", b"c", b"d", b"e", b"f"), strict=True
        )
    ]
    assert await log.head(run_id) == EventId(3, 1)


async def test_batches_are_told_as_the_version_before_told_them(redis: Redis) -> None:
    """An API of either version hears what a worker of the other one appends."""
    run_id = new_id()
    told = []
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(live_channel(run_id))
        await pubsub.get_message(timeout=5)
        await EventLog(redis, 60).append(run_id, Batch(2, 1, (b'{"a":1}', b'{"b":2}')))
        said: tuple[Any, ...] = (events_key(run_id), head_key(run_id), live_channel(run_id), 2, 3, 3, 60, 0, 1)
        await redis.eval(_FROZEN_SCRIPT, 3, *said, b'{"c":3}')  # type: ignore[misc,arg-type]
        for _ in range(2):
            message = await pubsub.get_message(timeout=5)
            assert message is not None
            told.append(message["data"])
    assert told == [b'2-1-2\n{"a":1}\n{"b":2}', b'2-3-3\n{"c":3}']
    assert parse_publication(told[1]).events == (b'{"c":3}',)


async def test_bell_rings_as_the_version_before_rang(redis: Redis) -> None:
    """The job lies where workers of yesterday look for it, and says what they read."""
    run_id = new_id()
    await Bell(redis).ring(run_id, Priority.INTERACTIVE)
    prefix, queue, wake = read_samples(NEWEST)["queue"].decode().split()
    assert (queue, wake) == (QUEUES[Priority.INTERACTIVE], wake_of(queue))
    [job_id] = await redis.lrange(wake, 0, -1)  # type: ignore[misc]
    assert await redis.zrange(queue, 0, -1) == [job_id]
    job = await redis.get(prefix + job_id.decode())
    assert job is not None
    assert JOB.encode() in job
    assert str(run_id).encode() in job


async def _interface(connection: asyncpg.Connection, sql: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The types of its parameters and columns; raises where `throughline_app` may not do it."""
    async with connection.transaction():
        await connection.execute("set local role throughline_app")
        statement = await connection.prepare(sql)
        await connection.execute(f"explain (generic_plan) {sql}")
        takes = [parameter.name for parameter in statement.get_parameters()]
        return takes, [(column.name, column.type.name) for column in statement.get_attributes()]


async def _columns(connection: asyncpg.Connection) -> dict[tuple[str, str], tuple[str, ...]]:
    rows = await connection.fetch(_COLUMNS)
    return {
        (row["table_name"], row["column_name"]): (row["udt_name"], row["is_nullable"], row["column_default"])
        for row in rows
    }
