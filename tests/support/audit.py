"""What must be true of the database, and of the world, once all runs have ended, whatever was killed on the way."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from common.ids import EventId
from tests.support.chaos import Chaos
from tests.support.system import System
from tests.support.watcher import Watcher, stored

_BROKEN = {
    "run that has not ended": "select id from runs where finished_at is null",
    "run whose end is not of its last attempt": "select id from runs where terminal_attempt <> attempt",
    "model call left open": "select run_id from model_calls where state = 'started'",
    "tool call left open": "select run_id from tool_calls where state <> 'finished'",
    "run whose steps are not numbered 1, 2, 3 …": """
        select r.id from runs r
        left join messages m on m.run_id = r.id and m.role = 'assistant'
        group by r.workspace_id, r.id
        having count(m.id) <> r.step_count or coalesce(max(m.step), 0) <> r.step_count
    """,
    "call without exactly one result": """
        select t.run_id from tool_calls t
        left join messages m on m.run_id = t.run_id and m.tool_call_id = t.id and m.role = 'tool'
        group by t.workspace_id, t.id having count(m.id) <> 1
    """,
    "run that began before the one before it had ended": """
        select later.id from runs later
        join runs earlier on earlier.conversation_id = later.conversation_id and earlier.created_at < later.created_at
        where later.started_at < coalesce(earlier.finished_at, 'infinity')
    """,
    "ended run whose usage is not the sum of its calls": """
        select r.id from runs r left join model_calls c on c.run_id = r.id
        where r.finished_at is not null
        group by r.workspace_id, r.id
        having coalesce(sum(c.input_tokens), 0) <> (r.usage ->> 'inputTokens')::bigint
            or coalesce(sum(c.output_tokens), 0) <> (r.usage ->> 'outputTokens')::bigint
            or coalesce(sum(c.cached_input_tokens), 0) <> (r.usage ->> 'cachedInputTokens')::bigint
            or coalesce(sum(c.cache_write_tokens), 0) <> (r.usage ->> 'cacheWriteTokens')::bigint
            or coalesce(sum(c.reasoning_tokens), 0) <> (r.usage ->> 'reasoningTokens')::bigint
            or coalesce(bool_or(c.estimated), false) <> (r.usage ->> 'estimated')::boolean
    """,
    "crashed model call that was free, or is not marked as estimated": """
        select run_id from model_calls where state = 'crashed' and (input_tokens = 0 or not estimated)
    """,
}


async def audit(system: System) -> list[str]:
    """What is wrong in the database and in the effects that the probe tools noted; empty when all is well."""
    problems = []
    for wrong, query in _BROKEN.items():
        problems += [f"{wrong}: {row[0]}" for row in await system.rows(query)]
    calls = await system.rows("select id, name, effect, outcome from tool_calls")
    return problems + broken_effects(system.effects_noted(), {row["id"]: dict(row) for row in calls})


def broken_effects(noted: Sequence[str], calls: dict[str, dict[str, Any]]) -> list[str]:
    """Effects that happened too often, under another key, for no call, or not at all for a call that went well."""
    problems = []
    keys: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in noted:
        name, _, key, call_id = line.split(" ")
        keys[call_id][key] += 1
        if call_id not in calls:
            problems.append(f"an effect of {name} for a call that nobody committed: {call_id}")
    for call_id, call in calls.items():
        times = keys[call_id].total()
        if call["effect"] == "at_most_once" and times > 1:
            problems.append(f"{call['name']} {call_id} took effect {times} times")
        if len(keys[call_id]) > 1:
            problems.append(f"{call['name']} {call_id} was given {len(keys[call_id])} keys")
        if call["outcome"] == "cancelled" and call["effect"] != "read" and times:
            problems.append(f"{call['name']} {call_id} is said not to have begun, and had an effect")
        if call["outcome"] == "ok" and not times:
            problems.append(f"{call['name']} {call_id} is said to have gone well, and had no effect")
    return problems


def doubled_effects(system: System, name: str) -> int:
    """How many calls of `name` took effect more than once."""
    calls = Counter(line.split(" ")[3] for line in system.effects_noted() if line.startswith(f"{name} "))
    return sum(times > 1 for times in calls.values())


async def audit_watchers(system: System, watchers: Iterable[Watcher]) -> list[str]:
    """Where what clients saw and folded differs from what Postgres holds."""
    problems = []
    ends = {
        str(row["id"]): (row["state"], EventId(row["terminal_attempt"], row["terminal_n"]))
        for row in await system.rows(
            "select id, state, terminal_attempt, terminal_n from runs where finished_at is not null"
        )
    }
    for watcher in watchers:
        problems += watcher.problems()
        run_id = watcher.run["id"]
        messages = await _messages(system, run_id)
        if watcher.held() != messages:
            problems.append(f"run {run_id}: its client holds {watcher.held()}, Postgres {messages}")
        state, last = ends.get(run_id, (None, None))
        said = {"done": "completed", "error": "failed", "cancelled": "cancelled"}.get(
            (watcher.end or {}).get("type", "")
        )
        if (said, watcher.cursor) != (state, None if last is None else str(last)):
            problems.append(f"run {run_id}: its client saw {said} at {watcher.cursor}, Postgres has {state} at {last}")
    return problems


async def check_whole(chaos: Chaos, system: System, watchers: Sequence[Watcher]) -> None:
    """What every fault promises: none of these runs fails, and what clients, effects and Postgres tell is one story."""
    chaos.figure("runs that failed", sum(not watcher.completed for watcher in watchers), 0)
    problems = [*await audit(system), *await audit_watchers(system, watchers)]
    assert not problems, problems[:10]


async def _messages(system: System, run_id: str) -> list[dict[str, Any]]:
    rows = await system.rows(
        """
        select role, content, tool_calls, tool_call_id from messages
        where run_id = $1::uuid and role <> 'user' order by position
        """,
        run_id,
    )
    messages = [
        {
            "runId": run_id,
            "role": row["role"],
            "content": row["content"],
            "toolCalls": json.loads(row["tool_calls"] or "null"),
            "toolCallId": row["tool_call_id"],
        }
        for row in rows
    ]
    return stored(messages, {"id": run_id})
