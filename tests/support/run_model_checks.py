"""What must hold in the run model's database: after every rule, and for all that is there at the end."""

from collections import defaultdict
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from common.ids import EventId
from common.model.messages import AgentSettings, ToolCallRequest, Usage
from common.model.run_state import Effect, Outcome
from common.store.database import Pool, workspace_transaction
from common.store.run_messages import select_history
from tests.support.run_model import Record, history_violations
from tests.support.run_model_clients import Answer, answers_of
from worker.providers.base import ModelRequest
from worker.run.history import to_history

ATTEMPTS_BEGUN = {
    ("waiting", "queued"): {0},
    ("waiting", "cancelled"): {1},
    ("queued", "running"): {1},
    ("queued", "cancelled"): {1},
    ("running", "running"): {1},
    ("running", "queued"): {0},
    ("running", "completed"): {0},
    ("running", "failed"): {0, 1},
    ("running", "cancelled"): {0, 1},
}
"""Every transition that there is, and how many attempts it may begin."""

RECORDER = """
create table transitions (
    seq bigint generated always as identity, workspace_id uuid, run_id uuid, old_state text, new_state text,
    attempts bigint, overtakes boolean);
create function note_transition() returns trigger language plpgsql security definer set search_path = public as $$
begin
    insert into transitions (workspace_id, run_id, old_state, new_state, attempts, overtakes)
    values (new.workspace_id, new.id, old.state, new.state, new.attempt - old.attempt,
        old.state = 'waiting' and new.state = 'queued' and exists (
            select from runs w where w.conversation_id = new.conversation_id and w.state = 'waiting'
                and w.cancel_requested_at is null and (w.turn, w.created_at) < (new.turn, new.created_at)));
    return null;
end $$;
create trigger note_transition after update on runs for each row
    when (old.state is distinct from new.state or old.attempt is distinct from new.attempt)
    execute function note_transition();
"""
"""The database itself notes every transition that is committed: none hides between two looks."""


class Row(NamedTuple):
    """A run as the machine sees it."""

    id: UUID
    conversation_id: UUID
    trigger_message_id: UUID
    state: str
    claimed_attempt: int | None
    terminal_id: EventId | None
    frozen: str | None
    """All of an ended run that may not change any more."""

    @property
    def has_ended(self) -> bool:
        return self.terminal_id is not None


class _Stored(NamedTuple):
    role: str
    content: str
    tool_calls: list[ToolCallRequest]
    tool_call_id: str | None
    is_current: bool
    outcome: str | None


class Ledger:
    """Looks into one workspace as the database's owner."""

    def __init__(self, owner: asyncpg.Connection, workspace_id: UUID, record: Record) -> None:
        self._owner = owner
        self._workspace_id = workspace_id
        self._record = record
        self._seen = 0
        self.rows: list[Row] = []

    async def look(self) -> None:
        """Reads all runs; what has ended stays as it was, and transitions follow the diagram."""
        before = {row.id: row.frozen for row in self.rows if row.has_ended}
        self.rows = await self._read_rows()
        ended = {row.id: row.frozen for row in self.rows}
        self._require(all(ended.get(run) == frozen for run, frozen in before.items()), "an ended run has changed")
        active = [row.conversation_id for row in self.rows if row.state in ("queued", "running", "paused")]
        self._require(len(active) == len(set(active)), "two active runs in a conversation")
        for seq, run_id, old, new, attempts, overtakes in await self._read_transitions():
            self._seen = seq
            self._record.happened[f"{old} → {new}"] += 1
            self._require(attempts in ATTEMPTS_BEGUN.get((old, new), ()), f"{run_id}: {old} → {new}, +{attempts}")
            self._require(not overtakes, f"{run_id} was promoted before an earlier one")

    async def execute(self, statement: str, *arguments: Any) -> None:
        """A statement of fate: a lease that runs out, a moment that comes."""
        await self._owner.execute(statement, *arguments)

    async def answers(self, run_id: UUID) -> list[Answer]:
        """What every client of the run must have in the end."""
        return answers_of((await self._read_messages()).get(run_id, []))

    async def terminal_event(self, run_id: UUID) -> bytes:
        """The stored end."""
        event: str = await self._owner.fetchval("select terminal_event from runs where id = $1", run_id)
        return event.encode()

    async def count_messages(self, content: str) -> int:
        """Messages of a user with this content."""
        found: int = await self._owner.fetchval(
            "select count(*) from messages where workspace_id = $1 and content = $2 and role = 'user'",
            self._workspace_id,
            content,
        )
        return found

    async def check_all(self, pool: Pool) -> None:
        """Once all runs have ended."""
        messages = await self._read_messages()
        for row in self.rows:
            self._check_order(row, messages.get(row.id, []))
        await self._check_calls(messages)
        await self._check_meter(messages)
        await self._check_superseded()
        await self._check_histories(pool)

    def _check_order(self, row: Row, messages: list[_Stored]) -> None:
        """Every answer is followed by the results of its calls, in their order, of the same standing."""
        rest = list(messages)
        while rest:
            answer = rest.pop(0)
            results, rest = rest[: len(answer.tool_calls)], rest[len(answer.tool_calls) :]
            wanted = [call.tool_call_id for call in answer.tool_calls]
            self._require(answer.role == "assistant", f"{row.id}: {answer} stands where an answer should")
            self._require([r.tool_call_id for r in results] == wanted, f"{row.id}: {wanted} have {results}")
            self._require(all(r.is_current == answer.is_current for r in results), f"{row.id}: results apart")

    async def _check_calls(self, messages: dict[UUID, list[_Stored]]) -> None:
        """Every call has one result; what the result says of the effect is true."""
        calls = await self._owner.fetch(
            "select id, run_id, effect, state, outcome from tool_calls where workspace_id = $1", self._workspace_id
        )
        told = {m.tool_call_id: m.outcome for some in messages.values() for m in some if m.role == "tool"}
        deeds = defaultdict(list)
        for deed in self._record.effects:
            deeds[deed.call_id].append(deed)
        self._require({call["id"] for call in calls} >= set(deeds), "an effect without a call in the ledger")
        for call in calls:
            done = deeds[call["id"]]
            self._record.happened[f"{call['effect']} {call['outcome']} after {len(done)}"] += 1
            self._require(call["state"] == "finished", f"{call['id']} is {call['state']}")
            self._require(told.get(call["id"]) == call["outcome"], f"{call['id']}: ledger and message differ")
            self._require(len({deed.key for deed in done}) <= 1, f"{call['id']} had several keys")
            if call["effect"] == Effect.AT_MOST_ONCE:
                self._require(len(done) <= 1, f"{call['id']} happened {len(done)} times")
            if call["outcome"] == Outcome.CANCELLED and call["effect"] != Effect.READ:
                self._require(not done, f"{call['id']} is said not to have begun, and happened")
            if call["outcome"] in (Outcome.OK, Outcome.ERROR):
                self._require(bool(done), f"{call['id']} is said to have ended, and never happened")

    async def _check_meter(self, messages: dict[UUID, list[_Stored]]) -> None:
        """Every request is metered and closed, the run's usage is their sum, and each step is one of them."""
        calls = await self._owner.fetch(
            "select run_id, state, input_tokens, output_tokens from model_calls where workspace_id = $1",
            self._workspace_id,
        )
        runs = await self._owner.fetch(
            "select id, usage, step_count from runs where workspace_id = $1", self._workspace_id
        )
        for run in runs:
            own = [call for call in calls if call["run_id"] == run["id"]]
            usage = msgspec.json.decode(run["usage"], type=Usage)
            spent = (sum(call["input_tokens"] for call in own), sum(call["output_tokens"] for call in own))
            steps = sum(message.role == "assistant" for message in messages.get(run["id"], []))
            completed = sum(call["state"] == "completed" for call in own)
            asked = self._record.requests.count(run["id"])
            self._require(all(call["state"] != "started" for call in own), f"{run['id']} has an open model call")
            self._require((usage.input_tokens, usage.output_tokens) == spent, f"{run['id']}: {usage} is not {spent}")
            self._require(run["step_count"] == steps == completed, f"{run['id']}: {run}, {steps}, {completed}")
            self._require(asked <= len(own), f"{run['id']} was asked {asked} times, metered {len(own)} times")

    async def _check_superseded(self) -> None:
        """What a superseded run has written, however late, does not count."""
        late = await self._owner.fetchval(
            "select count(*) from messages m join runs r on r.id = m.run_id"
            " where r.workspace_id = $1 and r.superseded_at is not null and m.superseded_at is null",
            self._workspace_id,
        )
        self._require(late == 0, f"{late} messages of superseded runs count")

    async def _check_histories(self, pool: Pool) -> None:
        """What the model would be shown next is what every provider takes."""
        for conversation_id in {row.conversation_id for row in self.rows}:
            async with workspace_transaction(pool, self._workspace_id) as connection:
                rows = await select_history(connection, conversation_id, UUID(int=0), 1_000_000, 1_000_000)
            request = ModelRequest(
                model="m", instructions="", messages=to_history(rows), tools=[], settings=AgentSettings()
            )
            for violation in history_violations(request):
                self._require(False, f"{conversation_id}: {violation}")

    async def _read_rows(self) -> list[Row]:
        rows = await self._owner.fetch(
            "select id, conversation_id, trigger_message_id, state, claimed_attempt, terminal_attempt, terminal_n,"
            " case when finished_at is not null then (to_jsonb(r) - 'superseded_at')::text end as frozen"
            " from runs r where workspace_id = $1 order by created_at, id",
            self._workspace_id,
        )
        return [
            Row(
                row["id"],
                row["conversation_id"],
                row["trigger_message_id"],
                row["state"],
                row["claimed_attempt"],
                None if row["terminal_n"] is None else EventId(row["terminal_attempt"], row["terminal_n"]),
                row["frozen"],
            )
            for row in rows
        ]

    async def _read_transitions(self) -> list[Any]:
        transitions: list[Any] = await self._owner.fetch(
            "select seq, run_id, old_state, new_state, attempts, overtakes from transitions"
            " where workspace_id = $1 and seq > $2 order by seq",
            self._workspace_id,
            self._seen,
        )
        return transitions

    async def _read_messages(self) -> dict[UUID, list[_Stored]]:
        rows = await self._owner.fetch(
            "select run_id, role, content, tool_calls, tool_call_id, superseded_at, outcome from messages"
            " where workspace_id = $1 and run_id is not null order by run_id, turn, position",
            self._workspace_id,
        )
        messages = defaultdict(list)
        for row in rows:
            calls = msgspec.json.decode(row["tool_calls"] or "[]", type=list[ToolCallRequest])
            current = row["superseded_at"] is None
            stored = _Stored(row["role"], row["content"], calls, row["tool_call_id"], current, row["outcome"])
            messages[row["run_id"]].append(stored)
        return messages

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            self._record.violations.append(what)
