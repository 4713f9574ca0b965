"""Everything that a client can do with a conversation is done to it at once, through two APIs."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx

from tests.support.audit import audit
from tests.support.chaos import Chaos
from tests.support.eventually import eventually
from tests.support.stages import named_plan
from tests.support.system import Client, System, running_system

_PROVIDERS = ("anthropic", "openrouter", "openai")
_HISTORY_BROKEN = {
    "result without its call, or call without its result, in what the model reads": """
        select t.run_id from tool_calls t
        join messages m on m.workspace_id = t.workspace_id and m.id = t.message_id
        join messages r on r.run_id = t.run_id and r.tool_call_id = t.id
        where (m.superseded_at is null) <> (r.superseded_at is null) or r.turn <> m.turn or r.position <= m.position
    """,
    "turn that two runs have answered": """
        select conversation_id from messages where run_id is not null and superseded_at is null
        group by conversation_id, turn having count(distinct run_id) > 1
    """,
    "answer that was replaced, of a run that was not": """
        select r.id from messages m join runs r on r.id = m.run_id
        where (m.superseded_at is null) <> (r.superseded_at is null)
    """,
}


async def test_conversation_stays_whole_under_parallel_changes(chaos: Chaos) -> None:
    """Parallel edits, posts, regenerates and cancels: a valid history for every wire, runs in order, no deadlock."""
    async with running_system(forked=True) as system:
        apis = await asyncio.gather(system.api(), system.api())
        await asyncio.gather(*(system.worker(PROBE_SECONDS="0.02", **chaos.steady) for _ in range(2)))
        first = await system.client(apis[0])
        clients = [first, await system.client(apis[1], first.workspace_id)]
        busy = [_Busy(clients, await first.conversation(), chaos.random) for _ in range(chaos.pick(2, 12))]
        await asyncio.gather(*(one.act(chaos.pick(12, 200)) for one in busy for _ in range(6)))
        statuses = sum((one.statuses for one in busy), Counter[str]())
        for status, times in sorted(statuses.items()):
            chaos.figure(f"answers {status}", times)
        await system.all_ended(120)
        for one in busy:
            await _continue(system, one)
        await _report(chaos, system)
        failures = [status for status in statuses if status.rpartition(" ")[2] >= "500"]
        assert not failures, failures


class _Busy:
    """A conversation, and what was done to it."""

    def __init__(self, clients: Sequence[Client], conversation_id: str, dice: random.Random) -> None:
        self.clients = clients
        self.path = f"/v1/conversations/{conversation_id}"
        self.statuses: Counter[str] = Counter()
        self._dice = dice
        self._messages: list[str] = []
        self._runs: list[str] = []

    async def act(self, times: int) -> None:
        """Does so many things, one after the other; call it several times at once."""
        acts = (self._post, self._post, self._store, self._edit, self._edit, self._regenerate, self._cancel, self._look)
        for _ in range(times):
            act = self._dice.choice(acts)
            answer = await act(self._dice.choice(self.clients).http)
            if answer is not None:
                self.statuses[f"to {act.__name__[1:]} {answer.status_code}"] += 1
                assert answer.status_code in (200, 202, 400, 404, 409) or answer.status_code >= 500, answer.text

    def wish(self) -> dict[str, Any]:
        """A provider, and a model with or without calls."""
        tools = self._dice.choice(("look", "store,charge", "charge"))
        model = named_plan("busy", steps=self._dice.randrange(3), tools=tools, words=4, pause_ms=2)
        return {"provider": self._dice.choice(_PROVIDERS), "model": model}

    async def _post(self, http: httpx.AsyncClient) -> httpx.Response:
        mode = self._dice.choice(("reject", "reject", "enqueue", "enqueue", "interrupt"))
        return self._note(await http.post(f"{self.path}/messages", json=self._text() | {"ifBusy": mode} | self.wish()))

    async def _store(self, http: httpx.AsyncClient) -> httpx.Response:
        role = self._dice.choice(("user", "assistant", "system"))
        return self._note(await http.post(f"{self.path}/messages", json=self._text() | {"role": role, "run": False}))

    async def _edit(self, http: httpx.AsyncClient) -> httpx.Response | None:
        if not self._messages:
            return None
        return await http.put(f"{self.path}/messages/{self._dice.choice(self._messages)}", json=self._text())

    async def _regenerate(self, http: httpx.AsyncClient) -> httpx.Response | None:
        if not self._messages:
            return None
        # Mostly one of the last, so that the conversation grows all the same.
        message = self._dice.choice(self._messages[-6:])
        body = self.wish() | {"ifBusy": self._dice.choice(("reject", "interrupt"))}
        return self._note(await http.post(f"{self.path}/messages/{message}/regenerate", json=body))

    async def _cancel(self, http: httpx.AsyncClient) -> httpx.Response | None:
        if not self._runs:
            return None
        return await http.post(f"/v1/runs/{self._dice.choice(self._runs[-4:])}/cancel")

    async def _look(self, http: httpx.AsyncClient) -> httpx.Response:
        answer = await http.get(self.path)
        if answer.status_code == 200:
            self._messages = [message["id"] for message in answer.json()["messages"]]
        return answer

    def _text(self) -> dict[str, Any]:
        return {"content": self._dice.choice(("a question", "another", "  ", "and this?"))}

    def _note(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code == 202:
            accepted = answer.json()
            self._messages.append(accepted["message"]["id"])
            if accepted["run"] is not None:
                self._runs.append(accepted["run"]["id"])
        return answer


async def _continue(system: System, busy: _Busy) -> None:
    """The history as it has become is read, and answered, by the model of each provider."""
    client = busy.clients[0]
    for provider in _PROVIDERS:
        model = named_plan(words=3)
        body = {"content": "go on", "provider": provider, "model": model}
        answer = await client.http.post(f"{busy.path}/messages", json=body)
        assert answer.status_code == 202, answer.text
        run = answer.json()["run"]
        end = (await client.events(run))[-1]
        assert end["type"] == "done", (provider, end)
        if provider == "openrouter":
            [asked] = [request.body for request in system.models.requests if request.body["model"] == model]
            told = [message["content"] for message in asked["messages"] if message["role"] == "user"]
            stored = [
                message["editedContent"] or message["content"]
                for message in await client.messages(run)
                if message["role"] == "user"
            ]
            assert told == stored


async def _report(chaos: Chaos, system: System) -> None:
    states = Counter(row["state"] for row in await system.rows("select state from runs"))
    for state, count in sorted(states.items()):
        chaos.figure(f"runs {state}", count)
    refused = sum(state not in ("completed", "cancelled") for state in states.elements())
    chaos.figure("runs that failed: a history that the provider refused", refused, 0)
    problems = await audit(system)
    for wrong, query in _HISTORY_BROKEN.items():
        problems += [f"{wrong}: {row[0]}" for row in await system.rows(query)]
    assert not problems, problems[:10]
    await _check_deadlocks(chaos, system)


async def _check_deadlocks(chaos: Chaos, system: System) -> None:
    """A connection is sure to have told its counters once it has ended."""
    others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    pids = [row["pid"] for row in await system.rows(f"select pid, pg_terminate_backend(pid) {others}")]

    async def have_ended() -> bool:
        return not await system.rows("select from pg_stat_activity where pid = any($1::integer[])", pids)

    await eventually(have_ended)
    [row] = await system.rows("select deadlocks from pg_stat_database where datname = current_database()")
    chaos.figure("deadlocks", row["deadlocks"], 0)
