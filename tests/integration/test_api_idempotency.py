"""Idempotency-Key, and posts that attach to what an earlier one began."""

import asyncpg
import httpx

from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, post_message, refusal_of
from tests.support.hand_worker import answer

KEY = {"Idempotency-Key": "a-key"}


async def test_same_request_later_gets_the_first_answer(client: httpx.AsyncClient) -> None:
    """The answer of before is given even though the run has changed and the body is spelt otherwise."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"
    first = await client.post(path, json={"content": "x", "run": True}, headers=KEY)
    await client.post(f"/v1/runs/{first.json()['run']['id']}/cancel")

    again = await client.post(
        path, content=b'{ "content" : "\\u0078" }', headers={**KEY, "Content-Type": "application/json"}
    )

    assert again.content == first.content
    assert again.json()["run"]["state"] == "queued"


async def test_key_of_another_request_is_refused(client: httpx.AsyncClient) -> None:
    """Another body, conversation or intention under a used key: 422, and nothing is stored."""
    conversation_id, other_id = await make_conversation(client), await make_conversation(client)
    path = f"/v1/conversations/{conversation_id}/messages"
    message = (await client.post(path, json={"content": "x", "run": False}, headers=KEY)).json()["message"]

    for refused in (
        await client.post(path, json={"content": "y", "run": False}, headers=KEY),
        await client.post(path, json={"content": "x"}, headers=KEY),
        await client.post(f"/v1/conversations/{other_id}/messages", json={"content": "x", "run": False}, headers=KEY),
        await client.post(f"{path}/{message['id']}/regenerate", json={}, headers=KEY),
    ):
        assert refusal_of(refused) == (422, "idempotency_key_reused")
    assert len((await client.get(path)).json()["data"]) == 1
    assert (await client.get("/v1/runs")).json()["data"] == []


async def test_refused_request_leaves_its_key_unused(client: httpx.AsyncClient) -> None:
    """A key is taken by what was done, not by what was refused."""
    conversation_id = await make_conversation(client)
    path = f"/v1/conversations/{conversation_id}/messages"
    run_id = (await post_message(client, conversation_id))["run"]["id"]
    assert (await client.post(path, json={"content": "x"}, headers=KEY)).status_code == 409
    await client.post(f"/v1/runs/{run_id}/cancel")

    assert (await client.post(path, json={"content": "other"}, headers=KEY)).status_code == 202


async def test_key_belongs_to_its_user_and_workspace(api: LiveApi, client: httpx.AsyncClient) -> None:
    """The same key of somebody else is another key."""
    workspace_id = new_id()
    for member in (client, await api.member(workspace_id), await api.member(workspace_id, user="bob")):
        path = f"/v1/conversations/{await make_conversation(member)}/messages"
        assert (await member.post(path, json={"content": "x"}, headers=KEY)).status_code == 202
        assert len((await member.get(path)).json()["data"]) == 1


async def test_key_is_forgotten_after_a_day(client: httpx.AsyncClient, database_url: str) -> None:
    """24 hours later the same key makes a new message."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"
    body = {"content": "x", "run": False}
    await client.post(path, json=body, headers=KEY)
    owner = await asyncpg.connect(database_url)
    await owner.execute("update idempotency_keys set created_at = created_at - interval '24 hours 1 second'")
    await owner.close()

    assert (await client.post(path, json=body, headers=KEY)).status_code == 202

    assert len((await client.get(path)).json()["data"]) == 2


async def test_malformed_key_is_refused(client: httpx.AsyncClient) -> None:
    """1 to 255 visible ASCII characters, or 400 and nothing stored."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"

    for key in (b"", b"a b", b"x" * 256, b"\xff\xfe", b"a\tb"):
        answer = await client.post(path, json={"content": "x"}, headers=[(b"Idempotency-Key", key)])
        assert refusal_of(answer) == (400, "invalid_request"), key
    assert (await client.get(path)).json()["data"] == []


async def test_post_with_the_id_of_a_run_attaches_to_it(client: httpx.AsyncClient) -> None:
    """A client that posts again with its last event id gets its run, and makes none."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"
    first = (await client.post(path, json={"content": "x"})).json()

    again = await client.post(path, json={"content": "x"}, headers={"Last-Event-ID": f"{first['run']['id']}:1-2"})

    assert again.status_code == 202
    assert again.json() == first
    assert len((await client.get(path)).json()["data"]) == 1


async def test_post_with_a_foreign_event_id_is_refused(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    """A malformed id, and one of no run of this conversation, unknown or somebody else's: 400, nothing stored."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"
    elsewhere = await post_message(client, await make_conversation(client))
    foreign = await post_message(stranger, await make_conversation(stranger))

    messages = set()
    for event_id in (f"{new_id()}:1-1", f"{elsewhere['run']['id']}:1-1", f"{foreign['run']['id']}:1-1"):
        answer = await client.post(path, json={"content": "x"}, headers={"Last-Event-ID": event_id})
        assert refusal_of(answer) == (400, "invalid_request")
        messages.add(answer.content)
    assert len(messages) == 1
    for event_id in ("", "1-1", "x", "1-1; drop", f"{new_id()}:1"):
        answer = await client.post(path, json={"content": "x"}, headers={"Last-Event-ID": event_id})
        assert refusal_of(answer) == (400, "invalid_request"), event_id
    assert (await client.get(path)).json()["data"] == []


async def test_same_request_may_ask_for_the_stream_instead(client: httpx.AsyncClient, pool: Pool) -> None:
    """With `Accept: text/event-stream` a repeated post streams the run that the first one began."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"
    run_id = (await client.post(path, json={"content": "x"}, headers=KEY)).json()["run"]["id"]
    await answer(pool)

    stream = await client.post(path, json={"content": "x"}, headers={**KEY, "Accept": "text/event-stream"})

    assert stream.status_code == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert f'"runId":"{run_id}"' in stream.text
    assert '"type":"done"' in stream.text
    assert len((await client.get("/v1/runs")).json()["data"]) == 1
