"""The AI SDK's chat over HTTP: which run is streamed, what the messages are, who may, and how it is refused."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from api.commands import chat_view
from common.config import Settings
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, live_api, make_conversation, offer
from tests.support.eventually import eventually
from tests.support.hand_worker import answer, claim, commit_step, complete, obey_cancel
from tests.support.ui_chat import CHAT, begin, chunks, messages, post, runs, said, shown


async def test_stop_ends_all_that_goes_on(client: httpx.AsyncClient, pool: Pool) -> None:
    """The active run is asked to end, those that wait end at once, and a second stop is fine."""
    await begin(client, said("one"))
    claimed = await claim(pool)
    await begin(client, said("two"), ifBusy="enqueue")

    stopping = asyncio.create_task(client.post(f"/ai/chat/{CHAT}/stop"))

    async def nothing_waits() -> bool:
        return (await runs(client))[1][1] == "cancelled"

    await eventually(nothing_waits)
    await obey_cancel(pool, claimed)

    assert (await stopping).status_code == 204
    assert (await client.post(f"/ai/chat/{CHAT}/stop")).status_code == 204
    assert [state for _, state in await runs(client)] == ["cancelled", "cancelled"]


async def test_nothing_to_resume_or_stop_in_an_unknown_chat(client: httpx.AsyncClient) -> None:
    """204 for both, no messages, and no conversation is made by asking."""
    assert (await client.get("/ai/chat/unknown/stream")).status_code == 204
    assert (await client.post("/ai/chat/unknown/stop")).status_code == 204
    assert await messages(client, "unknown") == []
    assert (await client.get("/v1/conversations")).json()["data"] == []


async def test_nothing_to_resume_a_while_after_the_end(
    client: httpx.AsyncClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """204 once the end is older than REPLAYED_FOR; until then the whole message, for who has just missed it."""
    run_id = await begin(client, said("one"))
    await answer(pool, "said in full")

    told = await chunks(client)
    monkeypatch.setattr(chat_view, "REPLAYED_FOR", chat_view.REPLAYED_FOR * 0)

    assert told[0] == {"type": "start", "messageId": run_id}
    assert [chunk["delta"] for chunk in told if chunk["type"] == "text-delta"] == ["said in full"]
    assert (await client.get(f"/ai/chat/{CHAT}/stream")).status_code == 204


async def test_messages_leave_out_the_answer_that_is_being_given(client: httpx.AsyncClient, pool: Pool) -> None:
    """Its stream tells it from its beginning, so the client would have it twice."""
    await begin(client, said("one"))
    claimed = await claim(pool)
    await commit_step(pool, claimed, "half")

    during = await shown(client)
    await complete(pool, claimed)

    assert during == [("user", "one")]
    assert await shown(client) == [("user", "one"), ("assistant", "half")]


async def test_messages_show_what_a_cancelled_run_had_said(client: httpx.AsyncClient, pool: Pool) -> None:
    """The text that the user has seen before the stop is there after a reload, in its place."""
    first = await begin(client, said("one"))
    await obey_cancel(pool, await claim(pool), "half an ans")
    await begin(client, said("two"))
    await answer(pool, "whole")

    assert await shown(client) == [
        ("user", "one"),
        ("assistant", "half an ans"),
        ("user", "two"),
        ("assistant", "whole"),
    ]
    assert (await messages(client))[1]["id"] == first


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"messages": []}, 400, "messages: there is none"),
        ({"messages": [{"role": "assistant", "parts": []}]}, 400, "the last one is not the user's"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "url": "data:,"}]}]}, 400, "only text"),
        ({"messages": [{"role": "user", "parts": []}]}, 400, "no text"),
        ({"messages": [{**said("x"), "id": ""}]}, 400, "an id has"),
        ({"messages": [said("x", "m" * 201)]}, 400, "an id has"),
        ({"messages": [said("x\x00")]}, 400, "U+0000"),
        ({"messages": [said("x")], "messageId": "another"}, 400, "messageId"),
        ({"messages": [said("x")], "id": ""}, 400, "id: 1 to 200"),
        ({"messages": [said("x")], "id": "a/b"}, 400, "id: 1 to 200"),
        ({"messages": [said("x")], "id": "a b"}, 400, "id: 1 to 200"),
        ({"messages": [said("x")], "id": ".."}, 400, "id: 1 to 200"),
        ({"messages": [said("x")], "id": "x" * 201}, 400, "id: 1 to 200"),
        ({"messages": [said("x")], "id": 7}, 400, "id: Expected `str`"),
        ({"messages": "x"}, 400, "messages: Expected `array`"),
        ({"messages": [said("x")], "trigger": "resume-stream"}, 400, "trigger"),
        ({"messages": [said("x")], "agentId": str(new_id())}, 400, "no such agent"),
        ({"messages": [said("x")], "provider": "nobody"}, 400, "nobody"),
        ({"messages": [], "trigger": "regenerate-message"}, 404, "nothing to answer"),
    ],
)
async def test_refused_post_says_why_and_writes_nothing(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, words: str
) -> None:
    """The body is a sentence, since the client shows it to the user; no chat is made."""
    response = await client.post("/ai/chat", json={"id": CHAT, **body})

    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/plain")
    assert words in response.text
    assert response.headers["x-error-code"]
    assert (await client.get("/v1/conversations")).json()["data"] == []


@pytest.mark.parametrize("path", ["/stream", "/messages"])
async def test_name_that_no_chat_can_have_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """Also where nothing would be found."""
    assert (await client.get(f"/ai/chat/{'x' * 201}{path}")).status_code == 400


async def test_who_may_not_is_told_in_words(api: LiveApi, workspace_id: UUID) -> None:
    """401 without a token, 403 for a viewer who posts; a viewer may read."""
    nobody, viewer = await api.client(), await api.member(workspace_id, "viewer")

    unknown = await post(nobody, said("x"))
    refused = await post(viewer, said("x"))

    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
    assert unknown.text.startswith("Send a token")
    assert (refused.status_code, refused.headers["x-error-code"]) == (403, "forbidden")
    assert (await viewer.get(f"/ai/chat/{CHAT}/stream")).status_code == 204
    assert await messages(viewer) == []


async def test_deleted_chat_is_gone_for_good(client: httpx.AsyncClient, pool: Pool) -> None:
    """Posting to it is refused, in words; there is nothing to resume, to stop, or to show."""
    await begin(client, said("one"))
    await answer(pool)
    [conversation] = (await client.get("/v1/conversations")).json()["data"]
    await client.delete(f"/v1/conversations/{conversation['id']}")

    refused = await post(client, said("two"))

    assert (refused.status_code, refused.text) == (404, "This chat was deleted.")
    assert (await client.get(f"/ai/chat/{CHAT}/stream")).status_code == 204
    assert (await client.post(f"/ai/chat/{CHAT}/stop")).status_code == 204
    assert await messages(client) == []


@pytest.mark.parametrize("kind", ["name", "uuid"])
async def test_chat_of_another_workspace_is_unknown(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, pool: Pool, kind: str
) -> None:
    """The same name, or the very UUID, is a chat of one's own: nothing of the other's is seen, changed or stopped."""
    name = CHAT if kind == "name" else await make_conversation(client)
    message = said("mine")
    await post(client, message, chat=name)

    assert (await stranger.get(f"/ai/chat/{name}/stream")).status_code == 204
    assert (await stranger.post(f"/ai/chat/{name}/stop")).status_code == 204
    assert await messages(stranger, name) == []
    assert (await post(stranger, message, chat=name)).status_code == 200
    assert (await post(stranger, said("theirs"), chat=name)).status_code == 200

    assert await shown(client, name) == [("user", "mine")]
    assert [state for _, state in await runs(client)] == ["queued"]
    assert await shown(stranger, name) == [("user", "mine"), ("user", "theirs")]


async def test_answer_of_another_workspace_cannot_be_regenerated(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, pool: Pool
) -> None:
    """A run's id is looked up in the asker's own chat alone."""
    run_id = await begin(client, said("mine"))
    await answer(pool)

    refused = await post(stranger, trigger="regenerate-message", messageId=run_id)

    assert (refused.status_code, refused.headers["x-error-code"]) == (404, "no_run")
    assert [found for found, _ in await runs(client)] == [run_id]


async def test_browser_may_ask_before_it_posts(settings: Settings, pool: Pool) -> None:
    """The preflight of what the client sends is allowed, and its page may read the code of an error."""
    await offer(pool)
    async with live_api(msgspec.structs.replace(settings, cors_origins=("https://app.example",))) as api:
        browser = await api.client(Origin="https://app.example")
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-ai-sdk-version",
        }
        preflight = await browser.options("/ai/chat", headers=asked)
        resume = await browser.options("/ai/chat/x/stream", headers={**asked, "Access-Control-Request-Method": "GET"})
        refused = await browser.post("/ai/chat", json={})

    for allowed in (preflight, resume):
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert {"authorization", "content-type", "x-ai-sdk-version"} <= set(
            allowed.headers["access-control-allow-headers"].lower().split(", ")
        )
    assert refused.status_code == 401
    assert "X-Error-Code" in refused.headers["access-control-expose-headers"]
