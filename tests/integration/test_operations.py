"""What operators are told: the numbers are those of the database."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.model.run_state import Priority, RunErrorCode, RunState
from common.settle import Failed, settle
from common.store.database import Pool
from common.store.operations import select_use
from common.store.run_schedule import claim_runs
from common.store.workers import WorkerNow, delete_worker, select_workers, upsert_worker
from tests.support.api_client import LiveApi, make_token
from tests.support.eventually import eventually
from tests.support.hand_worker import answer, claim, fail
from tests.support.seed import seed_run
from tests.support.worker_life import crash, expire_lease, worker_resources
from worker import report as worker_report
from worker.job import RunningRuns

_ADAS = "00000000-0000-4000-8000-00000000000a"
_BOBS = "00000000-0000-4000-8000-00000000000b"
_WORKER = WorkerNow("one", "1.0", datetime.now(UTC), 2, 8, False, tuple(Priority), 5, 60)


@pytest.fixture
async def operator(api: LiveApi) -> httpx.AsyncClient:
    """A superuser."""
    return await api.client(make_token(api.settings.jwt_secret, user="olga", is_superuser=True))


async def _past_runs(
    owner: "asyncpg.Connection[Any]", workspace: str, runs: int, *, ago: str, code: str | None = None
) -> None:
    """Runs that ended `ago`, each with a pickup of 40 ms, a first token after 500 ms, and a call of 10 and 5 tokens."""
    # The past cannot be written in good order: triggers and foreign keys are off.
    await owner.execute("set session_replication_role = replica")
    made = await owner.fetch(
        f"""
        insert into runs (workspace_id, id, conversation_id, trigger_message_id, turn, provider, model, max_steps,
                          created_by, created_at, available_at, claimed_at, started_at, first_token_at, finished_at,
                          state, error, error_code, terminal_event, terminal_attempt, terminal_n)
        select $1::text::uuid, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'echo', 'echo', 20,
               'ada', t - interval '1 s', t - interval '1 s', t - interval '960 ms', t - interval '960 ms',
               t - interval '500 ms', t, case when $3::text is null then 'completed' else 'failed' end,
               case when $3 is not null then jsonb_build_object('code', $3::text) end, $3, '{{}}', 1, 9
        from generate_series(1, $2), (select now() - interval '{ago}' as t) moment
        returning id
        """,
        workspace,
        runs,
        code,
    )
    await owner.execute("set session_replication_role = origin")
    await owner.execute(
        """
        insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, input_tokens,
                                 output_tokens, started_at, finished_at)
        select workspace_id, gen_random_uuid(), id, 1, 1, 'echo', 'echo', 'completed', 10, 5, finished_at, finished_at
        from runs where id = any ($1)
        """,
        [row["id"] for row in made],
    )


async def test_summary_counts_all_workspaces(operator: httpx.AsyncClient, pool: Pool) -> None:
    """Queued by priority with the oldest's age, running, waiting, and what has ended how."""
    await seed_run(pool)
    await answer(pool)
    await seed_run(pool)
    await fail(pool, await claim(pool), RunErrorCode.CRASH_LOOP)
    await seed_run(pool)
    await claim(pool)
    await seed_run(pool)
    await seed_run(pool)
    await seed_run(pool, state=RunState.WAITING)

    summary = (await operator.get("/v1/ops/summary")).json()

    interactive, background = summary["queues"]
    assert 0 <= interactive.pop("oldestDueS") < 60
    assert interactive == {"priority": "interactive", "queued": 2, "due": 2, "held": 0, "running": 1, "waiting": 1}
    nothing = dict.fromkeys(("queued", "due", "held", "running", "waiting"), 0)
    assert background == {"priority": "background", "oldestDueS": None, **nothing}
    assert summary["workers"] == []
    assert {(one["state"], one["code"], one["runs"]) for one in summary["ended"]} == {
        ("completed", None, 1),
        ("failed", "crash_loop", 1),
    }
    assert summary["pickup"]["samples"] == 3
    assert summary["lastMinute"]["completed"] == summary["lastMinute"]["failed"] == 1


async def test_latencies_and_minutes_are_those_of_the_runs(
    operator: httpx.AsyncClient, owner: "asyncpg.Connection[Any]"
) -> None:
    """Each run counts in the minute of its end; what is older than an hour does not count."""
    await _past_runs(owner, _ADAS, 3, ago="10 seconds")
    await _past_runs(owner, _BOBS, 2, ago="30 minutes 30 seconds", code="provider_error")
    await _past_runs(owner, _BOBS, 1, ago="2 hours")

    summary = (await operator.get("/v1/ops/summary")).json()
    history = (await operator.get("/v1/ops/history")).json()["data"]

    assert summary["pickup"] == {"samples": 3, **dict.fromkeys(("p50Ms", "p95Ms", "p99Ms"), pytest.approx(40))}
    assert summary["firstToken"] == {"samples": 3, **dict.fromkeys(("p50Ms", "p95Ms", "p99Ms"), pytest.approx(500))}
    assert summary["ended"] == [
        {"state": "completed", "code": None, "runs": 3},
        {"state": "failed", "code": "provider_error", "runs": 2},
    ]
    assert len(history) == 60
    assert [minute["at"] for minute in history] == sorted(minute["at"] for minute in history)
    ends = [(minute["completed"], minute["failed"], minute["outputTokens"]) for minute in history]
    assert (ends[-1], ends[-31], sum(map(sum, ends))) == ((3, 0, 15), (0, 2, 10), 30)
    assert history[-31]["pickupP95Ms"] == pytest.approx(40)
    assert history[-31]["firstTokenP50Ms"] == pytest.approx(500)
    assert history[0]["pickupP50Ms"] is None


async def test_failed_runs_are_listed_in_pieces(operator: httpx.AsyncClient, owner: "asyncpg.Connection[Any]") -> None:
    """The last one first, of all workspaces, each once; those of one code alone where one is asked for."""
    for minutes in range(4):
        code = "crash_loop" if minutes % 2 else "provider_error"
        await _past_runs(owner, (_ADAS, _BOBS)[minutes % 2], 1, ago=f"{minutes} minutes", code=code)

    first = (await operator.get("/v1/ops/failed-runs", params={"limit": 3})).json()
    rest = (await operator.get("/v1/ops/failed-runs", params={"limit": 3, "cursor": first["nextCursor"]})).json()
    crashed = (await operator.get("/v1/ops/failed-runs", params={"code": "crash_loop"})).json()

    found = first["data"] + rest["data"]
    assert (len({run["runId"] for run in found}), rest["nextCursor"]) == (4, None)
    assert [run["finishedAt"] for run in found] == sorted((run["finishedAt"] for run in found), reverse=True)
    assert [run["workspaceId"] for run in found] == [_ADAS, _BOBS] * 2
    assert [run["runId"] for run in crashed["data"]] == [run["runId"] for run in found if run["code"] == "crash_loop"]
    assert {run["code"] for run in crashed["data"]} == {"crash_loop"}


async def test_attempts_are_those_of_workers(operator: httpx.AsyncClient, pool: Pool) -> None:
    """What the sweep ends has no attempt more than workers made; what its worker ends has that one as well."""
    crashing = await seed_run(pool)
    for _ in range(2):
        await claim_runs(pool, "worker", 60, 10)
        await crash(pool, crashing)
    await claim_runs(pool, "worker", 60, 10)
    await seed_run(pool)
    await fail(pool, await claim(pool), RunErrorCode.PROVIDER_REJECTED)
    await expire_lease(pool, crashing)
    ended = Failed(RunErrorCode.CRASH_LOOP, "", retryable=False)
    assert await settle(pool, crashing.workspace_id, crashing.run.id, ended, by="sweep", attempt=3)

    listed = (await operator.get("/v1/ops/failed-runs")).json()["data"]

    assert {(run["code"], run["attempts"]) for run in listed} == {("crash_loop", 3), ("provider_rejected", 1)}


async def test_use_of_workspaces_agrees_with_the_database(pool: Pool, owner: "asyncpg.Connection[Any]") -> None:
    """Runs and tokens of today and of this month, whether their day is counted already or not."""
    for ago, runs in (("0 seconds", 3), ("26 hours", 5), ("5 days", 7), ("40 days", 9)):
        await _past_runs(owner, _ADAS, runs, ago=ago)
    await _past_runs(owner, _BOBS, 40, ago="0 seconds")

    before = await select_use(pool, 10)
    await _past_runs(owner, _ADAS, 1, ago="0 seconds")
    after = await select_use(pool, 10)

    runs = await owner.fetch(
        """
        select workspace_id::text, count(*) filter (where day = today) as today,
               count(*) filter (where date_trunc('month', day) = date_trunc('month', today)) as month
        from (select workspace_id, date_trunc('day', finished_at at time zone 'UTC') as day,
                     date_trunc('day', now() at time zone 'UTC') as today from runs) r
        group by 1
        """
    )
    expected = {row["workspace_id"]: (row["today"], row["month"]) for row in runs}
    assert {str(one.workspace_id): (one.runs_today, one.runs_this_month) for one in after} == expected
    assert [one.output_tokens_this_month for one in after] == [one.runs_this_month * 5 for one in after]
    assert [one.input_tokens_today for one in after] == [one.runs_today * 10 for one in after]
    assert sum(one.runs_today for one in after) == sum(one.runs_today for one in before) + 1
    assert [str(one.workspace_id) for one in after] == sorted(
        expected, key=lambda workspace: expected[workspace][1], reverse=True
    )


async def test_workers_are_told_of_until_they_are_long_silent(pool: Pool, owner: "asyncpg.Connection[Any]") -> None:
    """At work, draining, silent after some seconds, gone after ten minutes, or at once with a goodbye."""
    await upsert_worker(pool, _WORKER)
    assert [(one.owner, one.state, one.running, one.places) for one in await select_workers(pool)] == [
        ("one", "working", 2, 8)
    ]
    await upsert_worker(pool, _WORKER._replace(draining=True, running=1, output_tokens=70))
    [draining] = await select_workers(pool)
    assert (draining.state, draining.running, draining.output_tokens) == ("draining", 1, 70)

    await owner.execute("update workers set seen_at = seen_at - interval '11 seconds'")
    assert [one.state for one in await select_workers(pool)] == ["silent"]
    await owner.execute("update workers set seen_at = seen_at - interval '10 minutes'")
    assert await select_workers(pool) == []
    await upsert_worker(pool, _WORKER._replace(owner="two"))
    assert await owner.fetchval("select count(*) from workers") == 1
    await delete_worker(pool, "two")
    assert await select_workers(pool) == []


async def test_worker_lives_on_while_its_report_is_refused(
    settings: Settings, pool: Pool, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Postgres that is away, and an error nobody has thought of: the next report is written as if nothing was."""
    failures = [TimeoutError(), asyncpg.UndefinedColumnError("no such column")]

    async def write(pool: Pool, worker: WorkerNow) -> None:
        if failures:
            raise failures.pop()
        await upsert_worker(pool, worker)

    monkeypatch.setattr(worker_report, "upsert_worker", write)
    monkeypatch.setattr(worker_report, "_EVERY_S", 0.01)
    resources = worker_resources(settings, pool, redis)
    reporting = asyncio.create_task(worker_report.report(resources, RunningRuns(resources)))
    try:
        await eventually(lambda: select_workers(pool))
        assert failures == []
        assert not reporting.done()
    finally:
        reporting.cancel()
