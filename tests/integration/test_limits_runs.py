"""How many runs, streams and sockets there may be, and how many tokens a day: of a user, and of a workspace."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from common.config import Settings
from common.ids import new_id
from common.limits import LimitBook, default_limits
from common.store.database import Pool, open_pool, workspace_transaction
from tests.support.api_client import make_conversation, post_message, refusal_of
from tests.support.eventually import eventually
from tests.support.hand_worker import answer, claim
from tests.support.limits import forget_nothing, limited_api, retry_after_of, set_limits
from tests.support.openai_api import RESPONSES, written
from tests.support.openai_api import refusal_of as openai_refusal_of
from tests.support.peer import peer

DAY_S = 24 * 3600


async def _post(client: httpx.AsyncClient, conversation_id: str, **headers: str) -> httpx.Response:
    path = f"/v1/conversations/{conversation_id}/messages"
    return await client.post(path, json={"content": "x", "ifBusy": "enqueue"}, headers=headers)


def _chat(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}]}]}


async def test_line_of_a_user_has_an_end(settings: Settings, pool: Pool, workspace_id: UUID, database_url: str) -> None:
    """Of many posts at the same moment just as many are taken as may wait; the others leave nothing behind."""
    async with limited_api(settings, pool, user_queued_runs=3) as api:
        client, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        conversations = [await make_conversation(client) for _ in range(8)]
        answers = await asyncio.gather(*(_post(client, conversation) for conversation in conversations))
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 5
        for refused in answers:
            if refused.status_code == 429:
                assert refusal_of(refused) == (429, "too_many_runs")
                assert refused.json()["error"]["details"] == {"limit": "user_queued_runs", "most": "3"}
                retry_after_of(refused)
        assert (await written(database_url))["messages"] == 3
        for other in (bob, await api.member(new_id())):
            assert (await _post(other, await make_conversation(other))).status_code == 202
        store_only = {"content": "x", "run": False}
        path = f"/v1/conversations/{conversations[0]}/messages"
        assert (await client.post(path, json=store_only)).status_code == 202


async def test_run_that_begins_makes_room(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """What a worker has taken waits no more; what was accepted before is still said to be."""
    async with limited_api(settings, pool, queued_runs=1) as api:
        client, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        conversation = await make_conversation(client)
        first = await _post(client, conversation, **{"Idempotency-Key": "k"})
        for refused in (await _post(client, conversation), await _post(bob, conversation)):
            assert refusal_of(refused) == (429, "too_many_runs")
        again = await _post(client, conversation, **{"Idempotency-Key": "k"})
        assert (again.status_code, again.content) == (202, first.content)
        await claim(pool)
        assert (await _post(bob, conversation)).status_code == 202


async def test_every_way_to_begin_a_run_is_counted(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """Answering anew, the AI SDK's chat and OpenAI's responses, each refused in its own form."""
    async with limited_api(settings, pool, user_queued_runs=1) as api:
        client = await api.member(workspace_id)
        conversation = await make_conversation(client)
        trigger = (await post_message(client, conversation))["message"]["id"]
        await answer(pool)
        await post_message(client, await make_conversation(client))
        anew = await client.post(f"/v1/conversations/{conversation}/messages/{trigger}/regenerate")
        chat = await client.post("/ai/chat", json=_chat("fish", "x"))
        response = await client.post(RESPONSES, json={"input": "x", "background": True})
    for refused in (anew, chat, response):
        retry_after_of(refused)
    assert refusal_of(anew) == (429, "too_many_runs")
    assert chat.headers["x-error-code"] == "too_many_runs"
    assert chat.text.startswith("Your runs that have not begun")
    assert openai_refusal_of(response) == (429, "too_many_runs", None)


async def _spend(pool: Pool, workspace_id: UUID, run_id: str, tokens: int, days_ago: int = 0) -> None:
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute(
            """
            insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, input_tokens,
                                     output_tokens, started_at, finished_at)
            values (current_workspace(), $1, $2, 1, 1, 'p', 'm', 'completed', $3 - 1, 1, $4, $4)
            """,
            new_id(),
            UUID(run_id),
            tokens,
            datetime.now(UTC) - timedelta(days=days_ago),
        )


async def test_tokens_of_a_day_are_limited(
    settings: Settings, pool: Pool, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Today's tokens of the workspace count, until midnight; each protocol says so in its own form."""
    forget_nothing(monkeypatch)
    async with limited_api(settings, pool, tokens_per_day=100) as api:
        client, stranger = await api.member(workspace_id), await api.member(new_id())
        conversation = await make_conversation(client)
        run_id = (await post_message(client, conversation))["run"]["id"]
        await _spend(pool, workspace_id, run_id, 1_000, days_ago=1)
        await _spend(pool, workspace_id, run_id, 99)
        assert (await _post(client, conversation)).status_code == 202
        await _spend(pool, workspace_id, run_id, 1)
        native = await _post(client, conversation)
        chat = await client.post("/ai/chat", json=_chat("fish", "x"))
        response = await client.post(RESPONSES, json={"input": "x", "background": True})
        for refused in (native, chat, response):
            midnight_s = DAY_S - datetime.now(UTC).timestamp() % DAY_S
            assert midnight_s - 60 < retry_after_of(refused) % DAY_S < midnight_s + 60 or midnight_s < 60
        assert refusal_of(native) == (429, "budget_exceeded")
        assert native.json()["error"]["details"] == {"limit": "tokens_per_day", "most": "100"}
        assert chat.headers["x-error-code"] == "budget_exceeded"
        assert openai_refusal_of(response) == (429, "insufficient_quota", None)
        assert response.headers["x-should-retry"] == "false"
        assert (await client.get(f"/v1/conversations/{conversation}")).status_code == 200
        assert (await _post(stranger, await make_conversation(stranger))).status_code == 202
        await set_limits(pool, workspace_id, tokens_per_day=200)
        await client.get("/v1/tools")
        assert (await _post(client, conversation)).status_code == 202


async def test_tokens_of_a_user_are_limited(
    settings: Settings, pool: Pool, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has spent theirs waits until tomorrow; a colleague does not."""
    forget_nothing(monkeypatch)
    async with limited_api(settings, pool, user_tokens_per_day=100) as api:
        alice, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        conversation = await make_conversation(alice)
        await _spend(pool, workspace_id, (await post_message(alice, conversation))["run"]["id"], 100)
        assert refusal_of(await _post(alice, conversation)) == (429, "budget_exceeded")
        assert (await _post(bob, conversation)).status_code == 202


async def test_open_streams_are_limited(settings: Settings, pool: Pool, workspace_id: UUID, database_url: str) -> None:
    """The third of one user is refused, before anything has begun; one that ends makes room."""
    async with limited_api(settings, pool, user_streams=2) as api, AsyncExitStack() as stack:
        client, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        conversation = await make_conversation(client)
        path = f"/v1/runs/{(await post_message(client, conversation))['run']['id']}/stream"
        first, _ = [await stack.enter_async_context(client.stream("GET", path)) for _ in range(2)]
        before = await written(database_url)
        wants_stream = {"Accept": "text/event-stream"}
        for refused in (
            await client.get(path),
            await _post(client, conversation, **wants_stream),
        ):
            assert refusal_of(refused) == (429, "too_many_connections")
            retry_after_of(refused)
        for body in ({"stream": True}, {}):
            refused = await client.post(RESPONSES, json={"input": "x", **body})
            assert openai_refusal_of(refused) == (429, "too_many_connections", None)
        chat = await client.post("/ai/chat", json=_chat("fish", "x"))
        assert (chat.status_code, chat.headers["x-error-code"]) == (429, "too_many_connections")
        assert await written(database_url) == before
        async with bob.stream("GET", path) as of_bob:
            assert of_bob.status_code == 200
        await first.aclose()

        async def let_in() -> bool:
            async with client.stream("GET", path) as stream:
                return stream.status_code == 200

        await eventually(let_in)


async def test_streams_of_a_workspace_are_limited(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """All its users together; what is refused or has ended holds no place."""
    async with limited_api(settings, pool, streams=1) as api:
        client, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
        for _ in range(3):
            assert (await client.get(f"/v1/runs/{new_id()}/stream")).status_code == 404
        async with client.stream("GET", f"/v1/runs/{run_id}/stream") as stream:
            assert stream.status_code == 200
            refused = await bob.get(f"/v1/runs/{run_id}/stream")
            assert refusal_of(refused) == (429, "too_many_connections")


async def test_open_documents_are_limited(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """One socket too many is closed with 4429, the others stay open; who leaves makes room."""
    async with limited_api(settings, pool, user_sockets=1) as api:
        client, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        document = (await client.post("/v1/documents", json={"name": "Fish", "content": "cod"})).json()["id"]
        as_alice: dict[str, Any] = {"additional_headers": {"authorization": client.headers["authorization"]}}
        as_bob: dict[str, Any] = {"additional_headers": {"authorization": bob.headers["authorization"]}}
        async with peer(api.url, document, **as_alice) as one:
            await one.shows("cod")
            async with peer(api.url, document, **as_alice) as refused:
                assert await refused.closed() == 4429
            async with peer(api.url, document, **as_bob) as other:
                await other.shows("cod")
            assert one.close_code is None

        async def let_in() -> bool:
            async with peer(api.url, document, **as_alice) as again:
                await again.shows("cod", 2)
                return True

        await eventually(let_in, timeout_s=10)


async def test_limits_that_cannot_be_read_are_the_defaults(settings: Settings) -> None:
    """Without a database nobody is refused, or kept waiting, for its sake."""
    pool = await open_pool(settings)
    book = LimitBook(settings, pool)
    await pool.close()
    assert await book.read(new_id()) == default_limits(settings)
