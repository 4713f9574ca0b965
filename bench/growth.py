"""What a million finished runs cost those who come after them: the same work in a full database and in a small one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import httpx

from bench.rows import Found, Row, Say, at_most, beside
from common.config import Settings, load_settings
from common.store.database import Pool, close_pool, open_pool, workspace_transaction
from common.store.housekeeping import (
    BEFORE_ALL,
    delete_piece_of_conversation,
    find_deleted_conversations,
    find_runs_with_old_details,
    remove_run_details,
)
from common.store.run_schedule import claim_runs, find_cancelled, find_promotable, sweep_expired
from tests.support.api_client import live_api, make_conversation, offer
from tests.support.seed import seed_run
from tests.support.servers import Servers, running_servers

_LARGE_TABLES = ("runs", "messages", "tool_calls", "conversations")
_TENANT = UUID("00000000-0000-7000-8000-000000000000")
"""The workspace that every second run belongs to."""
_BATCH = 100
_SECRET = "a secret of the measurement, long enough for HS256"
_FILL = """
set session_replication_role = replica;  -- No trigger and no check of a reference for what is made to fit.
create temp table made as
select n, lpad(to_hex(n), 12, '0') as hex,
       ('00000000-0000-7000-8000-'
        || lpad(to_hex(case when (n / 10) % 2 = 0 then 0 else (n / 10) % 200 end), 12, '0'))::uuid as workspace_id,
       ('00000000-0000-7001-8000-' || lpad(to_hex(n / 10), 12, '0'))::uuid as conversation_id,
       n % 10 + 1 as turn,
       clock_timestamp() - interval '60 days' * (1 - n / {runs}::float8) as moment
from generate_series(0, {runs} - 1) n;
insert into conversations (workspace_id, id, title, last_turn, created_by, created_at, deleted_at)
select workspace_id, conversation_id, 'Conversation ' || n, 10, 'ada', moment,
       case when n % 100 = 0 then moment + interval '1 hour' end
from made where turn = 1;
insert into runs (workspace_id, id, conversation_id, trigger_message_id, turn, provider, model, instructions,
                  max_steps, state, attempt, step_count, usage, terminal_attempt, terminal_n, terminal_event,
                  created_by, created_at, started_at, first_token_at, finished_at)
select workspace_id, ('00000000-0000-7002-8000-' || hex)::uuid, conversation_id,
       ('00000000-0000-7003-8000-' || hex)::uuid, turn, 'echo', 'echo', repeat('Be kind. ', 20), 20, 'completed', 1, 1,
       '{{"inputTokens": 100, "outputTokens": 100}}', 1, 9, '{{"type": "done"}}', 'ada', moment, moment, moment, moment
from made;
insert into messages (workspace_id, id, conversation_id, turn, position, role, content, created_by, created_at)
select workspace_id, ('00000000-0000-7003-8000-' || hex)::uuid, conversation_id, turn, 0, 'user',
       repeat('A question. ', 10), 'ada', moment
from made;
insert into messages (workspace_id, id, conversation_id, run_id, step, turn, position, role, content, provider_data,
                      created_at)
select workspace_id, ('00000000-0000-7004-8000-' || hex)::uuid, conversation_id,
       ('00000000-0000-7002-8000-' || hex)::uuid, 1, turn, 1, 'assistant', repeat('An answer. ', 30), '{{"a": 1}}',
       moment
from made;
insert into tool_calls (workspace_id, id, run_id, message_id, step, index, name, arguments, effect, state, outcome)
select workspace_id, 'call_' || hex, ('00000000-0000-7002-8000-' || hex)::uuid,
       ('00000000-0000-7004-8000-' || hex)::uuid, 1, 0, 'look', '{{}}', 'read', 'finished', 'ok'
from made where n % 4 = 0;
drop table made;
reset session_replication_role;
"""


class Sizes(NamedTuple):
    """How many finished runs the small and the full database have, and how often everything is done."""

    small: int
    full: int
    rounds: int


FULL = Sizes(small=6_000, full=1_000_000, rounds=40)
QUICK = Sizes(small=6_000, full=100_000, rounds=20)


class _Grown(NamedTuple):
    """Milliseconds of each round by what was done; what a table's whole was read for; the size of all tables."""

    times: dict[str, list[float]]
    scans: dict[str, int]
    gigabytes: float


async def run_growth(sizes: Sizes, say: Say) -> Found:
    """Fills two databases, and does the same work in both."""
    async with running_servers() as servers:
        small = await _measure(servers, sizes.small, sizes.rounds, say)
        full = await _measure(servers, sizes.full, sizes.rounds, say)
    rows = [beside(f"{sizes.full:,} finished runs, all tables", full.gigabytes, "GB", small.gigabytes)]
    for name, times in full.times.items():
        for quantile, of in (("p50", median), ("p95", _p95)):
            base = of(small.times[name])
            limit = round(3 * base + 5, 1)
            rows.append(at_most(f"{name}, {sizes.full:,} finished runs, {quantile}", of(times), "ms", limit, base))
    rows.append(_scans(full))
    return Found(rows, 0)


def _scans(full: _Grown) -> Row:
    total = sum(full.scans.values())
    read = ", ".join(f"{name} {count}" for name, count in full.scans.items() if count)
    return at_most(f"large tables read as a whole{f' ({read})' if read else ''}", total, "", 0)


async def _measure(servers: Servers, runs: int, rounds: int, say: Say) -> _Grown:
    url = await servers.create_database()
    owner = await asyncpg.connect(url)
    try:
        began = time.monotonic()
        await owner.execute(_FILL.format(runs=runs))
        await owner.execute("vacuum analyze")
        say(f"{runs:,} finished runs made in {time.monotonic() - began:.0f} s")
        size = await owner.fetchval("select pg_database_size(current_database())")
        before = await _read_scans(owner)
        settings = load_settings(
            {
                "THROUGHLINE_ENV": "development",
                "DATABASE_URL": url,
                "REDIS_URL": servers.redis_url,
                "JWT_SECRET": _SECRET,
                "DEFAULT_PROVIDER": "echo",
                "DEFAULT_MODEL": "echo",
            }
        )
        async with _bench(settings) as bench:
            times = await bench.work(rounds)
        after = await _read_scans(owner)
    finally:
        await owner.close()
    return _Grown(times, {name: after[name] - before[name] for name in _LARGE_TABLES}, size / 1e9)


async def _read_scans(owner: Any) -> dict[str, int]:
    # A connection tells what it has read at its end, and at the latest a second later.
    await asyncio.sleep(2)
    rows = await owner.fetch("select relname, seq_scan from pg_stat_user_tables")
    return {row["relname"]: row["seq_scan"] for row in rows}


@asynccontextmanager
async def _bench(settings: Settings) -> AsyncIterator["_Bench"]:
    pool = await open_pool(settings)
    await offer(pool)
    try:
        async with live_api(settings) as api:
            yield _Bench(pool, await api.member(_TENANT))
    finally:
        await close_pool(pool)


class _Bench:
    def __init__(self, pool: Pool, client: httpx.AsyncClient) -> None:
        self._pool = pool
        self._client = client
        self._times: dict[str, list[float]] = {}

    async def work(self, rounds: int) -> dict[str, list[float]]:
        """Everything, by turns; the first round only warms up."""
        for number in range(rounds + 1):
            conversation_id = await make_conversation(self._client)
            for _ in range(20):
                await seed_run(self._pool)
            await self._time("claim of 10 runs", lambda: claim_runs(self._pool, "bench", 600, 10))
            await self._time("sweep with nothing to do", self._sweep)
            body = {"content": "hello"}
            path = f"/v1/conversations/{conversation_id}"
            await self._time("POST of a message", lambda p=path, b=body: self._ask("POST", f"{p}/messages", b))  # type: ignore[misc]
            await self._time("GET of a conversation", lambda p=path: self._ask("GET", p))  # type: ignore[misc]
            for what in ("conversations", "runs", "runs?state=failed"):
                page = f"/v1/{what}{'&' if '?' in what else '?'}limit=50"
                await self._time(f"GET /v1/{what}", lambda p=page: self._ask("GET", p))  # type: ignore[misc]
            await self._time(f"retention: details of {_BATCH} runs", self._remove_details)
            await self._time("retention: a conversation of 10 runs", self._delete_conversation)
            if number == 0:
                self._times.clear()
        return self._times

    async def _time(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        began = time.perf_counter()
        await work()
        self._times.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    async def _ask(self, method: str, path: str, body: Any = None) -> None:
        answer = await self._client.request(method, path, json=body)
        if answer.status_code not in (200, 202):
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")

    async def _sweep(self) -> None:
        await sweep_expired(self._pool, 0)
        await find_cancelled(self._pool)
        await find_promotable(self._pool)

    async def _remove_details(self) -> None:
        found = await find_runs_with_old_details(self._pool, 0, BEFORE_ALL, _BATCH)
        for workspace_id in {one.workspace_id for one in found}:
            async with workspace_transaction(self._pool, workspace_id) as connection:
                await remove_run_details(connection, [one.id for one in found if one.workspace_id == workspace_id])

    async def _delete_conversation(self) -> None:
        for one in await find_deleted_conversations(self._pool, 0, BEFORE_ALL, 1):
            async with workspace_transaction(self._pool, one.workspace_id) as connection:
                await delete_piece_of_conversation(connection, one.id, 0, 500)


def _p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]
