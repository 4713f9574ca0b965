"""Two tenants walk every operation of the running application. What one has is to the other as what does not exist."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx
import pytest

from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, make_token
from tests.support.crawl import Operation, operations, sockets
from tests.support.hand_worker import answer_all
from tests.support.raw_sync import first_message, raw_sync

Things = dict[str, str]
"""What somebody has, by the names under which operations ask for it."""

BODIES: dict[str, dict[str, Any]] = {
    "NewAgent": {"name": "x"},
    "AgentChange": {"name": "x"},
    "NewConversation": {},
    "ConversationChange": {"title": "x"},
    "NewMessage": {"content": "x"},
    "MessageEdit": {"content": "x"},
    "Regeneration": {},
    "NewTicket": {},
    "NewDocument": {"name": "x"},
    "DocumentChange": {"name": "x", "content": "x"},
    "ChatRequest": {"id": "x", "message": {"role": "user", "parts": [{"type": "text", "text": "x"}]}},
    "NewResponse": {"input": "x", "background": True},
}
"""A body that each operation takes, by its type."""

OWN_HEADERS = ("date", "x-request-id")
"""Headers that are each answer's own."""

ELSEWHERE: dict[str, str] = {
    "agentId": "agent_id",
    "agent_id": "agent_id",
    "conversationId": "conversation_id",
    "conversation": "conversation_id",
    "documentId": "document_id",
    "id": "conversation_id",
    "message_id": "message_id",
    "messageId": "message_id",
    "model": "agent_id",
    "runId": "run_id",
    "previous_response_id": "id_text",
    "triggerMessageId": "message_id",
    "Last-Event-ID": "event_id",
    "lastEventId": "event_id",
    "after": "event_id",
    "ticket": "ticket",
    "Idempotency-Key": "key",
}
"""Which thing a field of a body, a query or a header may name."""

HARMLESS = frozenset(
    {
        *(
            "agent",
            "archived",
            "content",
            "deleted",
            "from",
            "groupBy",
            "to",
            "user",
            "ifBusy",
            "priority",
            "instructions",
            "limit",
            "maxSteps",
            "message",
            "messages",
        ),
        *("name", "pinned", "provider", "q", "role", "run", "settings", "starting_after", "state", "stream"),
        *("superseded", "systemPrompt", "title", "tools", "trigger", "X-AI-SDK-Version"),
        # Of OpenAI's own; what is not spoken here is refused.
        *("background", "context_management", "include", "input", "max_output_tokens", "max_tool_calls", "metadata"),
        *("moderation", "parallel_tool_calls", "prompt", "prompt_cache_key", "prompt_cache_options"),
        *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream_options"),
        *("temperature", "text", "tool_choice", "top_logprobs", "top_p", "truncation", "user"),
    }
)
"""What names nothing that somebody has. A field that is neither here nor above fails the test until it is."""

ALSO_WHERE_NOTHING_IS = {
    "GET /ai/chat/{chat_name}/stream": 204,
    "POST /ai/chat/{chat_name}/stop": 204,
    "GET /ai/chat/{chat_name}/messages": 200,
}
"""What the AI SDK expects of a chat that does not exist yet. Everything else is 404."""


class Tenant:
    """Somebody with one of everything."""

    def __init__(self, api: LiveApi, pool: Pool, user: str) -> None:
        self.workspace_id = new_id()
        self.secret = f"what {user} keeps to themselves"
        self.token = make_token(api.settings.jwt_secret, (self.workspace_id, "owner"), user=user)
        self._api = api
        self._pool = pool
        self.http: httpx.AsyncClient

    async def arrive(self) -> "Tenant":
        """Connects."""
        self.http = await self._api.client(self.token)
        return self

    async def make(self) -> Things:
        """One of everything anew, a run that has ended among it."""
        agent_id = (await self.http.post("/v1/agents", json={"name": self.secret})).json()["id"]
        conversation_id = await make_conversation(self.http, title=self.secret, agentId=agent_id)
        document = (await self.http.post("/v1/documents", json={"name": self.secret, "content": self.secret})).json()
        key = uuid4().hex
        posted = await self.http.post(
            f"/v1/conversations/{conversation_id}/messages",
            json={"content": self.secret},
            headers={"Idempotency-Key": key},
        )
        run_id = posted.json()["run"]["id"]
        while (await self.http.get(f"/v1/runs/{run_id}")).json()["finishedAt"] is None:
            await asyncio.sleep(0.01)
        ticket = (await self.http.post("/v1/tickets", json={"runId": run_id})).json()["ticket"]
        return {
            "agent_id": agent_id,
            "chat_name": conversation_id,
            "conversation_id": conversation_id,
            "document_id": document["id"],
            "event_id": f"{run_id}:1-1",
            "id_text": f"resp_{UUID(run_id).hex}",
            "key": key,
            "message_id": posted.json()["message"]["id"],
            "name": agent_id,
            "run_id": run_id,
            "ticket": ticket,
        }


def _nothing() -> Things:
    """The names of what does not exist, of the same kinds."""
    ids = {name: str(new_id()) for name in ("agent_id", "conversation_id", "document_id", "message_id", "run_id")}
    return {
        **ids,
        "chat_name": ids["conversation_id"],
        "event_id": f"{ids['run_id']}:1-1",
        "id_text": f"resp_{new_id().hex}",
        "key": uuid4().hex,
        "name": ids["agent_id"],
        "ticket": f"tkt_{new_id().hex}_{'x' * 43}",
    }


@pytest.fixture
async def tenants(api: LiveApi, pool: Pool) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """Alice and Bob, while somebody ends all runs."""
    answering = asyncio.create_task(answer_all(pool))
    yield await Tenant(api, pool, "alice").arrive(), await Tenant(api, pool, "bob").arrive()
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


class Told(NamedTuple):
    """All that an answer says, but for the time. Of a stream that was begun, only that it was."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(json.loads(self.text)["error"]["code"])


async def _ask(
    who: Tenant, operation: Operation, ids: Things, place: tuple[str, str] | None = None, value: str = ""
) -> Told:
    """What the operation on what `ids` name is answered, with `value` in one more place."""
    sent: dict[str, dict[str, Any]] = {"query": {}, "header": {}, "body": {}}
    if operation.body is not None:
        sent["body"] = dict(BODIES[operation.body.__name__])
    if place is not None:
        sent[place[0]][place[1]] = value
    async with who.http.stream(
        operation.method,
        operation.path.format_map(ids),
        params=sent["query"],
        headers=sent["header"],
        json=sent["body"] if operation.body is not None else None,
    ) as answer:
        begins = operation.method == "POST" and answer.headers.get("content-type", "").startswith("text/event-stream")
        text = "" if begins else (await answer.aread()).decode()
    return Told(answer.status_code, text, {name: of for name, of in answer.headers.items() if name not in OWN_HEADERS})


def _named_by(operation: Operation, name: str) -> str | None:
    """Which thing a field names. Only OpenAI's clients name an agent as a model."""
    return None if name == "model" and operation.path.startswith("/v1/") else ELSEWHERE.get(name)


async def test_every_operation_has_a_recipe(api: LiveApi) -> None:
    """A new operation, parameter or field has to say above whether it names something that a workspace has."""
    unknown = [
        f"{operation}: {what}"
        for operation in operations(api.app)
        for what in (
            *(f"which id is {name}?" for name in operation.ids if name not in _nothing()),
            *(f"what is {name}?" for _, name in operation.places if name not in {*ELSEWHERE, *HARMLESS, "cursor"}),
            *(f"which body is {name}?" for name in [operation.body_name] if name and name not in BODIES),
        )
    ]
    assert unknown == []
    assert sockets(api.app) == {"/v1/documents/{document_id}/sync"}


async def test_what_a_path_names_is_not_there_for_others(api: LiveApi, tenants: tuple[Tenant, Tenant]) -> None:
    """Each id of one workspace asked for in another: 404, byte for byte and header for header that of no such id."""
    alice, bob = tenants
    hers = await alice.make()
    before = await _everything(alice, hers)
    for operation in operations(api.app):
        if operation.ids:
            foreign, unknown = await _ask(bob, operation, hers), await _ask(bob, operation, _nothing())
            assert foreign.status == ALSO_WHERE_NOTHING_IS.get(str(operation), 404), operation
            assert foreign == unknown, operation
            assert alice.secret not in foreign.text, operation
    assert await _everything(alice, hers) == before


async def test_what_a_field_names_is_not_there_for_others(api: LiveApi, tenants: tuple[Tenant, Tenant]) -> None:
    """Ids in bodies, queries and headers, cursors of streams, tickets and idempotency keys: as those of nothing."""
    alice, bob = tenants
    hers, his = await alice.make(), await bob.make()
    kept, before = hers, await _everything(alice, hers)
    for operation in operations(api.app):
        for place in operation.places:
            thing = _named_by(operation, place[1])
            if thing is None:
                continue
            # A key is tried once: where Bob has used it, it is his own.
            hers = await alice.make() if place[1] == "Idempotency-Key" else hers
            answers = []
            for value in (hers[thing], _nothing()[thing]):
                ids = await bob.make() if operation.ids and operation.method != "GET" else his
                answer = await _ask(bob, operation, ids, place, value)
                assert alice.secret not in answer.text, (operation, place)
                assert not any(name in answer.text for name in hers.values() if name not in value), (operation, place)
                answers.append((answer.status, answer.text.replace(value, "") if answer.status >= 400 else ""))
            assert answers[0] == answers[1], (operation, place)
    assert await _everything(alice, kept) == before


async def test_cursor_leads_on_only_where_it_is_from(api: LiveApi, tenants: tuple[Tenant, Tenant]) -> None:
    """A cursor of another workspace's list is refused as one that nobody has given; so is one that was changed."""
    alice, bob = tenants
    hers, his = await alice.make(), await bob.make()
    await alice.make()
    lists = [operation for operation in operations(api.app) if ("query", "cursor") in operation.places]
    tried = 0
    for operation in lists:
        page = await alice.http.get(operation.path.format_map(hers), params={"limit": 1})
        cursor = page.json()["nextCursor"]
        if cursor is None:
            continue
        invented = await _ask(bob, operation, his, ("query", "cursor"), "x")
        foreign = await _ask(bob, operation, his, ("query", "cursor"), cursor)
        assert foreign.code == "invalid_cursor", operation
        assert foreign == invented, operation
        for changed in (cursor[:-1], cursor + "A", cursor.swapcase(), cursor[1:] + cursor[0], cursor + "="):
            refused = await _ask(alice, operation, hers, ("query", "cursor"), changed)
            assert refused == invented, (operation, changed)
        tried += 1
    assert tried >= 5


async def test_socket_of_another_workspace_is_not_there(api: LiveApi, tenants: tuple[Tenant, Tenant]) -> None:
    """Whichever way somebody says who they are: the close of a document that does not exist, word for word."""
    alice, bob = tenants
    hers, his = await alice.make(), await bob.make()
    minted = await bob.http.post("/v1/tickets", json={"documentId": his["document_id"]})
    headers = {"Authorization": f"Bearer {bob.token}"}

    async def closes(document: str) -> list[tuple[int, str]]:
        found = []
        for given in ({"headers": headers}, {"query": f"?ticket={minted.json()['ticket']}"}, {}):
            async with raw_sync(api.url, document, **given) as socket:
                if not given:
                    await socket.send(first_message(bob.token))
                found.append(await socket.close_code())
        return found

    foreign = await closes(hers["document_id"])

    assert [code for code, _ in foreign] == [4404, 4401, 4404]
    assert foreign == await closes(str(new_id()))


async def _everything(who: Tenant, things: Things) -> list[Any]:
    """What they see of what they have."""
    paths = ("agents/{agent_id}", "conversations/{conversation_id}", "documents/{document_id}", "runs/{run_id}")
    return [(await who.http.get(f"/v1/{path.format_map(things)}")).json() for path in paths]
