"""Rounds of housekeeping: who does them, and that nobody has to wait for them."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from common.config import Settings
from common.devserver.errors import DevServerError
from common.devserver.housekeep import housekeep
from common.queue import Bell
from common.store.database import Pool, open_pool, workspace_transaction
from common.store.housekeeping import take_round
from common.store.run_schedule import claim_runs, find_cancelled, find_promotable, sweep_expired
from tests.support.eventually import eventually
from tests.support.outdated import delete_conversation, finished_run, keep, seed_document
from tests.support.seed import Seeded
from tests.support.worker_life import read_one
from worker.housekeeping import keep_house_for_ever


async def test_retention_of_nothing_keeps_for_ever(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """0 days is no age at which anything goes."""
    seeded = await finished_run(pool, 4000)
    await delete_conversation(pool, seeded, 4000)
    await seed_document(pool, seeded.workspace_id, 4000)
    removed = await keep(pool, bell, settings, retention_run_details_days=0, retention_deleted_days=0)
    assert set(removed.values()) == {0}


async def test_two_at_once_remove_each_thing_once(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """Housekeepers that meet neither wait for each other for long nor fail, and together they do all of it."""
    seeded = [await finished_run(pool, 40) for _ in range(8)]
    for one in seeded[:4]:
        await delete_conversation(pool, one, 31)
    first, second = await asyncio.gather(keep(pool, bell, settings), keep(pool, bell, settings))
    third = await keep(pool, bell, settings)
    totals = {kind: first[kind] + second[kind] + third[kind] for kind in first}
    assert (totals["conversations"], totals["run_details"]) == (4, 4)
    assert await owner.fetchval("select count(*) from runs where details_removed_at is null") == 0


async def test_what_somebody_holds_is_left_and_the_others_go(pool: Pool, bell: Bell, settings: Settings) -> None:
    """A conversation that somebody works in is no obstacle, and nobody has to wait for housekeeping's locks."""
    held, free = await finished_run(pool, 40), await finished_run(pool, 40)
    async with workspace_transaction(pool, held.workspace_id) as connection:
        await connection.execute("select from conversations where id = $1 for update", held.conversation_id)
        assert (await keep(pool, bell, settings))["run_details"] == 1
    assert await read_one(pool, free, "details_removed_at is not null") == (True,)
    assert (await keep(pool, bell, settings))["run_details"] == 1


async def test_round_is_one_workers(pool: Pool) -> None:
    """Of many workers that ask one gets the round, and until it is over nobody gets the next."""
    assert sum(await asyncio.gather(*(take_round(pool, 300) for _ in range(8)))) == 1
    assert not await take_round(pool, 300)


async def test_workers_keep_house_by_themselves(pool: Pool, bell: Bell, settings: Settings) -> None:
    """What becomes outdated goes without anybody's call."""
    often = msgspec.structs.replace(settings, housekeeping_s=0.05)
    tasks = [asyncio.create_task(keep_house_for_ever(pool, bell, often)) for _ in range(2)]
    for _ in range(2):
        seeded = await finished_run(pool, 31)

        async def is_removed(seeded: Seeded = seeded) -> bool:
            return await read_one(pool, seeded, "details_removed_at is not null") == (True,)

        await eventually(is_removed)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_round_by_hand_removes_and_counts(pool: Pool, settings: Settings) -> None:
    """`throughline housekeep` does what workers do, at once."""
    seeded = await finished_run(pool, 31)
    removed = await housekeep(settings)
    assert {kind: count for kind, count in removed.items() if count} == {"run_details": 1}
    assert await read_one(pool, seeded, "details_removed_at is not null") == (True,)


async def test_round_by_hand_without_postgres_says_so(settings: Settings) -> None:
    """One line, without the password."""
    url = "postgresql://me:hidden-word@127.0.0.1:1/db"
    with pytest.raises(DevServerError, match="cannot reach the database") as raised:
        await housekeep(msgspec.structs.replace(settings, database_url=url))
    assert "hidden-word" not in str(raised.value)


async def test_nothing_large_is_read_as_a_whole(
    pool: Pool, bell: Bell, settings: Settings, owner: Any, database_url: str
) -> None:
    """Every search of a round, of a claim and of a sweep has an index to go by, however many runs have ended."""
    seeded = await finished_run(pool, 40)
    await delete_conversation(pool, await finished_run(pool, 40), 31)
    await seed_document(pool, seeded.workspace_id, 31)
    # Where there is an index it is taken then, also for a table of a few rows.
    await owner.execute(f"alter database {urlsplit(database_url).path[1:]} set enable_seqscan = off")
    large = ("runs", "messages", "tool_calls", "conversations", "documents", "idempotency_keys", "tickets")
    counted = "select relname, seq_scan from pg_stat_user_tables where relname = any($1)"
    before = await owner.fetch(f"{counted} order by relname", large)
    searching = await open_pool(settings, 1)
    assert (await keep(searching, bell, settings))["conversations"] == 1
    await claim_runs(searching, "a worker", 10, 10)
    await sweep_expired(searching, 0)
    await find_cancelled(searching)
    await find_promotable(searching)
    await searching.fetch("select * from describe_queue()")
    await searching.execute("select pg_stat_force_next_flush()")
    await searching.close()
    await owner.execute("select pg_stat_clear_snapshot()")
    assert await owner.fetch(f"{counted} order by relname", large) == before


async def test_what_sees_across_workspaces_may_read_no_content(owner: Any) -> None:
    """Of every table, the scheduler's role may read ids, numbers, times, flags, codes, and change schedules alone."""
    columns = await owner.fetch(
        """
        select c.relname::text as table, a.attname::text as column, format_type(a.atttypid, null) as type,
               has_column_privilege('throughline_scheduler', c.oid, a.attnum, 'update') as changes
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
          and has_column_privilege('throughline_scheduler', c.oid, a.attnum, 'select')
        """
    )
    numbers = {"bigint", "integer", "smallint", "double precision"}
    harmless = numbers | {"uuid", "boolean", "timestamp with time zone", "date"}
    texts = {(row["table"], row["column"]) for row in columns if row["type"] not in harmless}
    assert texts == {
        ("runs", "state"),
        ("runs", "lease_owner"),
        ("runs", "error_code"),
        ("requeues", "requeued_by"),
        ("workspace_limits", "name"),
        ("default_limits", "name"),
    }
    assert {row["table"] for row in columns if row["changes"]} == {"runs", "availability", "use_closed"}
    deletable = await owner.fetch(
        """
        select relname from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
            and has_table_privilege('throughline_scheduler', oid, 'delete')
        """
    )
    assert deletable == []
