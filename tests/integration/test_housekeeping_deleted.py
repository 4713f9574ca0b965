"""Retention of what was deleted, or holds no longer: it goes after its time with all that belongs to it."""

from typing import Any

import pytest
from redis.asyncio import Redis

from common import housekeeping
from common.config import Settings
from common.ids import new_id
from common.model.run_state import Priority
from common.queue import QUEUES, Bell
from common.store.database import Pool
from tests.support.outdated import delete_conversation, finished_run, keep, seed_document, tables_with
from tests.support.seed import seed_run
from tests.support.worker_life import read

KEPT_WITHOUT_ITS_RUN = {
    "model_calls": "what was consumed",
    "document_changes": "who changed a document",
    "document_clients": "who is behind a document's letters",
    "idempotency_keys": "gone after a day by themselves",
}
"""Tables that name a run or a conversation and need not lose their rows with it."""


async def test_deleted_conversation_goes_with_all_that_belongs_to_it(
    pool: Pool, bell: Bell, settings: Settings, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in many pieces; no table knows it or its runs any more, but for the meter. Others stay."""
    monkeypatch.setattr(housekeeping, "_PIECE", 2)
    old, young = await finished_run(pool, 40), await finished_run(pool, 40)
    for _ in range(3):
        await finished_run(pool, 40, workspace_id=old.workspace_id, conversation_id=old.conversation_id)
    alive = await finished_run(pool, 40, workspace_id=old.workspace_id)
    await delete_conversation(pool, old, 31)
    await delete_conversation(pool, young, 29)
    assert (await keep(pool, bell, settings))["conversations"] == 1
    assert await tables_with(owner, "conversation_id", old.conversation_id) == {"model_calls"}
    assert await tables_with(owner, "run_id", old.run.id) == {"model_calls"}
    for seeded in (young, alive):
        assert await read(pool, seeded, f"select count(*) from messages where run_id = '{seeded.run.id}'") == [(2,)]
    assert await owner.fetchval("select count(*) from conversations") == 2


async def test_deleted_conversation_waits_for_its_run(pool: Pool, bell: Bell, settings: Settings, owner: Any) -> None:
    """A run that has not ended yet, in an outage for instance, still finds its conversation."""
    seeded = await seed_run(pool)
    await delete_conversation(pool, seeded, 31)
    assert (await keep(pool, bell, settings))["conversations"] == 0
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
    old, young, alive = [await seed_document(pool, workspace_id, days) for days in (31, 29, None)]
    tables = await tables_with(owner, "document_id", alive)
    assert (await keep(pool, bell, settings))["documents"] == 1
    assert await tables_with(owner, "document_id", old) == set()
    for document_id in (young, alive):
        assert await tables_with(owner, "document_id", document_id) == tables
    assert {row["id"] for row in await owner.fetch("select id from documents")} == {young, alive}
    assert len(tables) >= 5


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
    removed = await keep(pool, bell, settings)
    assert (removed["idempotency_keys"], removed["tickets"]) == (6, 5)
    assert {row["key"] for row in await owner.fetch("select key from idempotency_keys")} == {"1", "23"}
    assert await owner.fetchval("select count(*) from tickets where expires_at > now()") == 2


async def test_bell_that_rang_long_ago_is_forgotten(pool: Pool, bell: Bell, settings: Settings, redis: Redis) -> None:
    """What the queue holds of jobs that Redis has dropped goes; a bell that still rings stays."""
    for priority, queue in QUEUES.items():
        await bell.ring(new_id(), priority)
        await redis.zadd(queue, {"lost": 1_000_000})
    assert (await keep(pool, bell, settings))["bells"] == len(Priority)
    assert [await redis.zcard(queue) for queue in QUEUES.values()] == [1, 1]
