"""Retention: what is outdated goes, what is not stays, and nobody has to wait for it."""

import asyncio
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from common import housekeeping
from common.config import Settings
from common.devserver.errors import DevServerError
from common.devserver.housekeep import housekeep
from common.housekeeping import keep_house
from common.ids import new_id
from common.model.run_state import Priority, RunState
from common.queue import QUEUES, Bell
from common.store.database import Pool, open_pool, workspace_transaction
from common.store.housekeeping import take_round
from common.store.run_schedule import claim_runs, find_cancelled, find_promotable, sweep_expired
from tests.support.api_client import make_conversation, post_message
from tests.support.eventually import eventually
from tests.support.hand_worker import answer
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import read, read_one, write
from worker.housekeeping import keep_house_for_ever

KEPT_WITHOUT_ITS_RUN = {
    "model_calls": "what was consumed",
    "document_changes": "who changed a document",
    "document_clients": "who is behind a document's letters",
    "idempotency_keys": "gone after a day by themselves",
}
"""Tables that name a run or a conversation and need not lose their rows with it."""


@pytest.fixture
async def owner(database_url: str) -> Any:
    """A connection that sees everything."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def bell(redis: Redis) -> Bell:
    """Of the empty queue."""
    return Bell(redis)


async def _keep(pool: Pool, bell: Bell, settings: Settings, **retention: int) -> dict[str, int]:
    return await keep_house(pool, bell, msgspec.structs.replace(settings, **retention), 60)


async def _finished(pool: Pool, days_ago: float, **where: Any) -> Seeded:
    """A run that ended so long ago, with a step, a call, the call's result and everything that is written beside."""
    seeded = await seed_run(pool, state=RunState.WAITING, **where)
    ids = {"run": seeded.run.id, "conversation": seeded.conversation_id, "step": new_id(), "result": new_id()}
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        turn = await connection.fetchval("select turn from runs where id = $1", seeded.run.id)
        await connection.execute(
            f"""
            insert into messages (workspace_id, id, conversation_id, run_id, step, turn, position, role, content,
                                  tool_calls, tool_call_id, outcome, provider_data)
            values (current_workspace(), '{ids["step"]}', '{ids["conversation"]}', '{ids["run"]}', 1, {turn}, 1,
                    'assistant', 'I look', '[{{"toolCallId": "c", "name": "look", "arguments": {{}}}}]', null, null,
                    '{{"signature": "long"}}'),
                   (current_workspace(), '{ids["result"]}', '{ids["conversation"]}', '{ids["run"]}', null, {turn}, 2,
                    'tool', 'nothing', null, 'c', 'ok', null);
            insert into tool_calls (workspace_id, id, run_id, message_id, step, index, name, arguments, effect, state,
                                    outcome)
            values (current_workspace(), 'c{ids["run"]}', '{ids["run"]}', '{ids["step"]}', 1, 0, 'look', '{{}}', 'read',
                    'finished', 'ok');
            insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, finished_at)
            values (current_workspace(), '{new_id()}', '{ids["run"]}', 1, 1, 'echo', 'echo', 'completed', now());
            update runs set instructions = 'be kind', tools = '{{look}}', settings = '{{"temperature": 1}}',
                state = 'failed', error = '{{"code": "internal", "message": "no", "retryable": true}}',
                partial_text = 'so far', terminal_attempt = 1, terminal_n = 9, terminal_event = '{{}}',
                finished_at = clock_timestamp() - interval '1 day' * {days_ago}
            where id = '{ids["run"]}'
            """
        )
    return seeded


async def _delete(pool: Pool, seeded: Seeded, days_ago: float) -> None:
    statement = f"update conversations set deleted_at = clock_timestamp() - interval '1 day' * {days_ago} where id = $1"
    await write(pool, seeded, statement, seeded.conversation_id)


async def _document(pool: Pool, workspace_id: UUID, days_ago: float | None) -> UUID:
    """A document with a row in each table that belongs to it, deleted so long ago."""
    document_id = new_id()
    deleted = "null" if days_ago is None else f"clock_timestamp() - interval '1 day' * {days_ago}"
    rows = {
        "document_updates": "(workspace_id, document_id, seq, data) values (W, D, 1, '')",
        "document_snapshots": "(workspace_id, document_id, seq, data) values (W, D, 1, '')",
        "document_texts": "(workspace_id, document_id, seq, content) values (W, D, 1, 'words')",
        "document_changes": "(workspace_id, document_id, first_seq, last_seq, actor_kind, actor_id, inserted, removed,"
        " began_at, ended_at) values (W, D, 1, 1, 'user', 'ada', 5, 0, now(), now())",
        "document_clients": "(workspace_id, document_id, client, actor_kind, actor_id, taken_by_server)"
        " values (W, D, 1, 'user', 'ada', false)",
    }
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute(
            f"insert into documents (workspace_id, id, name, kind, created_by, updated_by, deleted_at) values"
            f" (current_workspace(), $1, 'notes', 'markdown', 'ada', 'ada', {deleted})",
            document_id,
        )
        for table, values in rows.items():
            values = values.replace("W", "current_workspace()").replace("D", f"'{document_id}'")
            await connection.execute(f"insert into {table} {values}")
    return document_id


async def _tables_with(owner: Any, column: str, value: UUID) -> set[str]:
    """The tables in which a row names `value` in `column`."""
    tables = await owner.fetch(
        "select table_name from information_schema.columns where table_schema = 'public' and column_name = $1", column
    )
    names = [row["table_name"] for row in tables]
    return {
        name for name in names if await owner.fetchval(f"select exists (select from {name} where {column} = $1)", value)
    }


async def test_details_of_old_runs_go_and_what_is_shown_stays(pool: Pool, bell: Bell, settings: Settings) -> None:
    """Ledger, the model's own form and what the run was made of are removed; answer, error, end and usage are not."""
    old, young = await _finished(pool, 31), await _finished(pool, 29)
    for round_finds in (1, 0):
        assert (await _keep(pool, bell, settings, retention_run_details_days=30))["run_details"] == round_finds
    details = "instructions, tools, settings, details_removed_at is not null"
    assert await read_one(pool, old, details) == ("", [], {}, True)
    assert await read_one(pool, young, details) == ("be kind", ["look"], {"temperature": 1}, False)
    for seeded, calls, data in ((old, 0, [None, None]), (young, 1, [{"signature": "long"}, None])):
        assert await read(pool, seeded, "select count(*) from tool_calls") == [(calls,)]
        assert await read(pool, seeded, "select count(*) from model_calls") == [(1,)]
        shown = "select content, tool_calls is not null, outcome, provider_data from messages where run_id is not null"
        assert await read(pool, seeded, f"{shown} order by position") == [
            ("I look", True, None, data[0]),
            ("nothing", False, "ok", data[1]),
        ]
        kept = "partial_text, terminal_event, terminal_n, state, (error ->> 'message')"
        assert await read_one(pool, seeded, kept) == ("so far", "{}", 9, "failed", "no")


_EMPTIED = "instructions = '', tools = '{}', settings = '{}'"


@pytest.mark.parametrize(
    ("change", "removed"),
    [
        ("instructions = 'other'", False),
        ("details_removed_at = now(), instructions = 'other', tools = '{}', settings = '{}'", False),
        (f"details_removed_at = now(), {_EMPTIED}, partial_text = null", False),
        (_EMPTIED, False),
        ("instructions = 'other'", True),
        ("partial_text = null", True),
        ("details_removed_at = null", True),
        ("details_removed_at = now()", True),
    ],
)
async def test_run_that_has_ended_is_immutable_but_for_its_removal(
    pool: Pool, bell: Bell, settings: Settings, change: str, removed: bool
) -> None:
    """Details may be emptied once, all of them, and nothing else may change with them, before or after."""
    seeded = await _finished(pool, 2)
    await _keep(pool, bell, settings, retention_run_details_days=1 if removed else 3)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="immutable"):
        await write(pool, seeded, f"update runs set {change} where id = $1", seeded.run.id)


async def test_conversation_reads_the_same_without_details(
    client: httpx.AsyncClient, pool: Pool, bell: Bell, settings: Settings, owner: Any
) -> None:
    """What the API says of it, of its run and of its messages does not change by a byte."""
    conversation_id = await make_conversation(client)
    await post_message(client, conversation_id)
    await answer(pool)
    run_id = (await client.get(f"/v1/conversations/{conversation_id}")).json()["lastRun"]["id"]
    paths = (f"/v1/conversations/{conversation_id}", f"/v1/runs/{run_id}", f"/v1/runs?conversationId={conversation_id}")
    await owner.execute("alter table runs disable trigger terminal_runs_are_immutable")
    await owner.execute("update runs set finished_at = created_at + interval '1 ms' - interval '40 days'")
    await owner.execute("update runs set created_at = created_at - interval '40 days'")
    await owner.execute("alter table runs enable trigger terminal_runs_are_immutable")
    before = [(await client.get(path)).content for path in paths]
    assert (await _keep(pool, bell, settings))["run_details"] == 1
    assert [(await client.get(path)).content for path in paths] == before


async def test_deleted_conversation_goes_with_all_that_belongs_to_it(
    pool: Pool, bell: Bell, settings: Settings, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in many pieces; no table knows it or its runs any more, but for the meter. Others stay."""
    monkeypatch.setattr(housekeeping, "_PIECE", 2)
    old, young = await _finished(pool, 40), await _finished(pool, 40)
    for _ in range(3):
        await _finished(pool, 40, workspace_id=old.workspace_id, conversation_id=old.conversation_id)
    alive = await _finished(pool, 40, workspace_id=old.workspace_id)
    await _delete(pool, old, 31)
    await _delete(pool, young, 29)
    assert (await _keep(pool, bell, settings))["conversations"] == 1
    assert await _tables_with(owner, "conversation_id", old.conversation_id) == {"model_calls"}
    assert await _tables_with(owner, "run_id", old.run.id) == {"model_calls"}
    for seeded in (young, alive):
        assert await read(pool, seeded, f"select count(*) from messages where run_id = '{seeded.run.id}'") == [(2,)]
    assert await owner.fetchval("select count(*) from conversations") == 2


async def test_deleted_conversation_waits_for_its_run(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """A run that has not ended yet, in an outage for instance, still finds its conversation."""
    seeded = await seed_run(pool)
    await _delete(pool, seeded, 31)
    assert (await _keep(pool, bell, settings))["conversations"] == 0
    assert await owner.fetchval("select count(*) from conversations") == 1


async def test_every_table_of_runs_loses_its_rows_with_them(owner: Any) -> None:
    """A table that names a run or a conversation cascades from it, or stands in the list of those that stay."""
    tables = await owner.fetch(
        """
        select distinct c.relname as name, exists (
            select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and k.confdeltype = 'c'
                and k.confrelid in ('runs'::regclass, 'conversations'::regclass)) as cascades
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname in ('run_id', 'conversation_id')
        where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
        """
    )
    assert {row["name"] for row in tables if not row["cascades"]} <= set(KEPT_WITHOUT_ITS_RUN)


async def test_deleted_document_goes_with_its_log(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """After its time there is no row of it in any table; until then it can be restored, whole."""
    workspace_id = new_id()
    old, young, alive = [await _document(pool, workspace_id, days) for days in (31, 29, None)]
    tables = await _tables_with(owner, "document_id", alive)
    assert (await _keep(pool, bell, settings))["documents"] == 1
    assert await _tables_with(owner, "document_id", old) == set()
    for document_id in (young, alive):
        assert await _tables_with(owner, "document_id", document_id) == tables
    assert {row["id"] for row in await owner.fetch("select id from documents")} == {young, alive}
    assert len(tables) >= 5


async def test_retention_of_nothing_keeps_for_ever(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """0 days is no age at which anything goes."""
    seeded = await _finished(pool, 4000)
    await _delete(pool, seeded, 4000)
    await _document(pool, seeded.workspace_id, 4000)
    removed = await _keep(pool, bell, settings, retention_run_details_days=0, retention_deleted_days=0)
    assert set(removed.values()) == {0}


async def test_keys_and_tickets_go_when_they_hold_no_longer(
    pool: Pool, bell: Bell, settings: Settings, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys a day after they were taken, tickets at their end, of all workspaces."""
    monkeypatch.setattr(housekeeping, "_PIECE", 3)
    await owner.execute(
        """
        insert into idempotency_keys (workspace_id, user_id, key, request_hash, created_at)
        select gen_random_uuid(), 'ada', hours::text, '', now() - interval '1 hour' * hours
        from unnest(array[1, 23, 25, 26, 27, 28, 29, 48]) hours;
        insert into tickets (workspace_id, hash, subject_kind, subject_id, user_id, role, redeem_by, expires_at)
        select gen_random_uuid(), 'h', 'run', gen_random_uuid(), 'ada', 'owner', now(),
               now() + interval '1 min' * minutes
        from unnest(array[-100, -9, -8, -7, -1, 1, 5]) minutes
        """
    )
    removed = await _keep(pool, bell, settings)
    assert (removed["idempotency_keys"], removed["tickets"]) == (6, 5)
    assert {row["key"] for row in await owner.fetch("select key from idempotency_keys")} == {"1", "23"}
    assert await owner.fetchval("select count(*) from tickets where expires_at > now()") == 2


async def test_bell_that_rang_long_ago_is_forgotten(pool: Pool, bell: Bell, settings: Settings, redis: Redis) -> None:
    """What the queue holds of jobs that Redis has dropped goes; a bell that still rings stays."""
    for priority, queue in QUEUES.items():
        await bell.ring(new_id(), priority)
        await redis.zadd(queue, {"lost": 1_000_000})
    assert (await _keep(pool, bell, settings))["bells"] == len(Priority)
    assert [await redis.zcard(queue) for queue in QUEUES.values()] == [1, 1]


async def test_two_at_once_remove_each_thing_once(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """Housekeepers that meet neither wait for each other for long nor fail, and together they do all of it."""
    seeded = [await _finished(pool, 40) for _ in range(8)]
    for one in seeded[:4]:
        await _delete(pool, one, 31)
    first, second = await asyncio.gather(_keep(pool, bell, settings), _keep(pool, bell, settings))
    third = await _keep(pool, bell, settings)
    totals = {kind: first[kind] + second[kind] + third[kind] for kind in first}
    assert (totals["conversations"], totals["run_details"]) == (4, 4)
    assert await owner.fetchval("select count(*) from runs where details_removed_at is null") == 0


async def test_what_somebody_holds_is_left_and_the_others_go(pool: Pool, bell: Bell, settings: Settings) -> None:
    """A conversation that somebody works in is no obstacle, and nobody has to wait for housekeeping's locks."""
    held, free = await _finished(pool, 40), await _finished(pool, 40)
    async with workspace_transaction(pool, held.workspace_id) as connection:
        await connection.execute("select from conversations where id = $1 for update", held.conversation_id)
        assert (await _keep(pool, bell, settings))["run_details"] == 1
    assert await read_one(pool, free, "details_removed_at is not null") == (True,)
    assert (await _keep(pool, bell, settings))["run_details"] == 1


async def test_round_is_one_workers(pool: Pool) -> None:
    """Of many workers that ask one gets the round, and until it is over nobody gets the next."""
    assert sum(await asyncio.gather(*(take_round(pool, 300) for _ in range(8)))) == 1
    assert not await take_round(pool, 300)


async def test_workers_keep_house_by_themselves(pool: Pool, bell: Bell, settings: Settings) -> None:
    """What becomes outdated goes without anybody's call."""
    often = msgspec.structs.replace(settings, housekeeping_s=0.05)
    tasks = [asyncio.create_task(keep_house_for_ever(pool, bell, often)) for _ in range(2)]
    for _ in range(2):
        seeded = await _finished(pool, 31)

        async def is_removed(seeded: Seeded = seeded) -> bool:
            return await read_one(pool, seeded, "details_removed_at is not null") == (True,)

        await eventually(is_removed)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_round_by_hand_removes_and_counts(pool: Pool, settings: Settings) -> None:
    """`throughline housekeep` does what workers do, at once."""
    seeded = await _finished(pool, 31)
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
    seeded = await _finished(pool, 40)
    await _delete(pool, await _finished(pool, 40), 31)
    await _document(pool, seeded.workspace_id, 31)
    # Where there is an index it is taken then, also for a table of a few rows.
    await owner.execute(f"alter database {urlsplit(database_url).path[1:]} set enable_seqscan = off")
    large = ("runs", "messages", "tool_calls", "conversations", "documents", "idempotency_keys", "tickets")
    counted = "select relname, seq_scan from pg_stat_user_tables where relname = any($1)"
    before = await owner.fetch(f"{counted} order by relname", large)
    searching = await open_pool(settings, 1)
    assert (await _keep(searching, bell, settings))["conversations"] == 1
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
