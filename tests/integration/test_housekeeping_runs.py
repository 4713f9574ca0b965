"""Retention of runs: what only a worker needs goes when it is old, what is shown stays as it was."""

from typing import Any

import asyncpg
import httpx
import pytest

from common.config import Settings
from common.queue import Bell
from common.store.database import Pool
from tests.support.api_client import make_conversation, post_message
from tests.support.hand_worker import answer
from tests.support.outdated import finished_run, keep
from tests.support.worker_life import read, read_one, write


async def test_details_of_old_runs_go_and_what_is_shown_stays(pool: Pool, bell: Bell, settings: Settings) -> None:
    """Ledger, the model's own form and what the run was made of are removed; answer, error, end and usage are not."""
    old, young = await finished_run(pool, 31), await finished_run(pool, 29)
    for round_finds in (1, 0):
        assert (await keep(pool, bell, settings, retention_run_details_days=30))["run_details"] == round_finds
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
    seeded = await finished_run(pool, 2)
    await keep(pool, bell, settings, retention_run_details_days=1 if removed else 3)
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
    assert (await keep(pool, bell, settings))["run_details"] == 1
    assert [(await client.get(path)).content for path in paths] == before
