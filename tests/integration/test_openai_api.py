"""OpenAI's Responses over HTTP: what is begun, how it is answered, and who finds it."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from api.resources import Resources
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, post_message
from tests.support.eventually import eventually
from tests.support.hand_worker import answer, claim, commit_step, complete
from tests.support.openai_api import RESPONSES, conversation_of, refusal_of, respond, run_of, written
from tests.support.player import Player


async def run_row(database_url: str, response: dict[str, Any]) -> asyncpg.Record:
    connection = await asyncpg.connect(database_url)
    try:
        row = await connection.fetchrow("select * from runs where id = $1", run_of(response))
        assert row is not None
        return row
    finally:
        await connection.close()


async def messages_in(client: httpx.AsyncClient, response: dict[str, Any]) -> list[tuple[str, str]]:
    detail = (await client.get(f"/v1/conversations/{conversation_of(response)}")).json()
    return [(message["role"], message["content"]) for message in detail["messages"]]


async def test_input_of_many_messages_is_stored_in_order(client: httpx.AsyncClient) -> None:
    """All but the last start nothing; a developer is a system; parts of a content are lines."""
    parts = [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]
    said = [{"type": "output_text", "text": "yes?", "annotations": [], "logprobs": []}]
    response = await respond(
        client,
        input=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": "hey"},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": said},
            {"type": "message", "role": "user", "content": parts},
        ],
    )
    assert await messages_in(client, response) == [
        ("system", "be brief"),
        ("user", "hey"),
        ("assistant", "yes?"),
        ("user", "one\ntwo"),
    ]
    assert len((await client.get("/v1/runs")).json()["data"]) == 1


async def test_agent_is_found_by_id_and_by_name(client: httpx.AsyncClient, database_url: str) -> None:
    """Its instructions come first, then the request's; the request's settings win over the agent's."""
    made = await client.post(
        "/v1/agents",
        json={
            "name": "Scribe",
            "instructions": "Write.",
            "provider": "other",
            "model": "other-2",
            "tools": ["current_time"],
            "settings": {"temperature": 1, "topP": 0.5},
        },
    )
    agent_id = made.json()["id"]
    for name in (agent_id, "Scribe"):
        response = await respond(
            client,
            model=name,
            instructions="In verse.",
            temperature=0.25,
            max_output_tokens=99,
            reasoning={"effort": "low"},
        )
        assert response["model"] == "other/other-2"
        row = await run_row(database_url, response)
        assert str(row["agent_id"]) == agent_id
        assert row["instructions"] == "Write.\n\nIn verse."
        assert row["tools"] == ["current_time"]
        settings = row["settings"] if isinstance(row["settings"], dict) else msgspec.json.decode(row["settings"])
        assert settings == {"temperature": 0.25, "topP": 0.5, "maxTokens": 99, "reasoning": "low"}


@pytest.mark.parametrize(
    ("model", "shown"),
    [("other/other-1", "other/other-1"), ("other-2", "other/other-2"), ("other/new", "other/new"), (None, "echo/echo")],
)
async def test_model_is_found_by_its_names(client: httpx.AsyncClient, model: str | None, shown: str) -> None:
    """With its provider, listed or not; alone where the catalogue lists it; without one the default answers."""
    assert (await respond(client, model=model))["model"] == shown


async def test_models_are_listed_and_found_one_by_one(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    """The workspace's agents, then the models of configured providers; each id is one that `model` takes."""
    await client.post("/v1/agents", json={"name": "Scribe"})
    listed = (await client.get("/openai/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["Scribe", "echo/echo", "other/other-1", "other/other-2"]
    for model in listed["data"]:
        assert (await client.get(f"/openai/v1/models/{model['id']}")).json() == model
        await respond(client, model=model["id"])
    assert refusal_of(await stranger.get("/openai/v1/models/Scribe")) == (404, "not_found", None)


async def test_conversation_goes_on_by_each_of_its_names(client: httpx.AsyncClient, pool: Pool) -> None:
    """`conversation` in three forms, and the response before: each continues the one that a native client began."""
    conversation_id = UUID(await make_conversation(client))
    await post_message(client, str(conversation_id), "first")
    previous = f"resp_{(await answer(pool)).hex}"
    for place in (
        {"conversation": f"conv_{conversation_id.hex}"},
        {"conversation": {"id": str(conversation_id)}},
        {"previous_response_id": None},
    ):
        if "previous_response_id" in place:
            place = {"previous_response_id": previous}
        response = await respond(client, **place)
        assert conversation_of(response) == conversation_id
        previous = f"resp_{(await answer(pool)).hex}"
    assert len(await messages_in(client, response)) == 8


async def test_background_response_is_polled_to_its_end(client: httpx.AsyncClient, pool: Pool) -> None:
    """Queued, in progress with what is committed, completed with usage; the ids stay."""
    response = await respond(client)
    assert response["status"] == "queued"
    path = f"{RESPONSES}/{response['id']}"
    claimed = await claim(pool)
    await commit_step(pool, claimed, "hello back")
    working = (await client.get(path)).json()
    await complete(pool, claimed)
    done = (await client.get(path)).json()
    assert (working["status"], done["status"]) == ("in_progress", "completed")
    assert working["output"] == done["output"]
    assert [item["content"][0]["text"] for item in done["output"]] == ["hello back"]
    assert working["usage"] is None
    assert done["usage"]["total_tokens"] == 0
    assert done["id"] == response["id"]


async def test_plain_request_is_answered_once_the_run_has_ended(client: httpx.AsyncClient, pool: Pool) -> None:
    """One answer, with all the output; what GET says afterwards is the same."""
    posting = asyncio.create_task(client.post(RESPONSES, json={"input": "hello"}))
    await eventually(lambda: _has_run(client))
    assert not posting.done()
    await answer(pool)
    response = (await posting).json()
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "hello back"
    assert (await client.get(f"{RESPONSES}/{response['id']}")).json() == response


async def test_client_that_leaves_frees_its_place_and_cancels_nothing(
    api: LiveApi, client: httpx.AsyncClient, pool: Pool
) -> None:
    """A plain request holds a subscription no longer than its client waits."""
    resources: Resources = api.app.state.resources
    posting = asyncio.create_task(client.post(RESPONSES, json={"input": "hello"}))
    await eventually(lambda: resources.hub.clients == 1)
    posting.cancel()
    await eventually(lambda: resources.hub.clients == 0)
    [run] = (await client.get("/v1/runs")).json()["data"]
    assert run["state"] == "queued"
    assert not resources.hub.streams


async def test_server_that_stops_says_where_the_response_goes_on(api: LiveApi, client: httpx.AsyncClient) -> None:
    """503 that no SDK repeats by itself, since that would begin another run; it names the response."""
    resources: Resources = api.app.state.resources
    posting = asyncio.create_task(client.post(RESPONSES, json={"input": "hello"}))
    await eventually(lambda: resources.hub.clients == 1)
    resources.hub.abort_streams()
    refused = await posting
    [run] = (await client.get("/v1/runs")).json()["data"]
    assert refusal_of(refused) == (503, "unavailable", None)
    assert refused.headers["x-should-retry"] == "false"
    assert f"resp_{UUID(run['id']).hex}" in refused.json()["error"]["message"]


async def test_same_key_begins_one_run(client: httpx.AsyncClient, pool: Pool, database_url: str) -> None:
    """A repeated POST with its Idempotency-Key is answered with the response of the first, whatever it has become;
    another request under that key is refused.
    """
    key = {"Idempotency-Key": "once"}
    body = {"input": "hello", "background": True}
    first, again = [(await client.post(RESPONSES, json=body, headers=key)).json() for _ in range(2)]
    await answer(pool)
    last = (await client.post(RESPONSES, json=body, headers=key)).json()
    other = await client.post(RESPONSES, json={"input": "other"}, headers=key)
    assert first["id"] == again["id"] == last["id"]
    assert last["status"] == "completed"
    assert refusal_of(other)[:2] == (422, "idempotency_key_reused")
    assert (await written(database_url))["runs"] == 1


async def test_cancel_ends_the_response_and_may_be_repeated(client: httpx.AsyncClient) -> None:
    """The response says `cancelled`, again and again."""
    response = await respond(client)
    for _ in range(2):
        cancelled = await client.post(f"{RESPONSES}/{response['id']}/cancel")
        assert cancelled.status_code == 200
        assert cancelled.json()["status"] == "cancelled"
    assert (await client.get(f"{RESPONSES}/{response['id']}")).json()["status"] == "cancelled"


async def test_stream_begins_after_any_number(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """`starting_after` is exclusive; beyond the end nothing is left, and the stream ends at once."""
    resources: Resources = api.app.state.resources
    player = await Player.begin(resources.pool, resources.log, workspace_id)
    await player.tell("a", "b")
    await player.end()
    path = f"{RESPONSES}/resp_{player.id.hex}?stream=true"
    whole = await _frames(client, path)
    numbers = [frame["sequence_number"] for frame in whole]
    for place in (0, 3, len(whole) - 1):
        assert await _frames(client, f"{path}&starting_after={numbers[place]}") == whole[place + 1 :]
    refused = await client.get(f"{path}&starting_after=x")
    assert refusal_of(refused) == (400, "invalid_request", "starting_after")


async def test_stream_whose_log_is_gone_is_told_from_the_database(
    api: LiveApi, client: httpx.AsyncClient, pool: Pool
) -> None:
    """A full, valid sequence from `response.created` to `response.completed`, with the items that GET shows."""
    response = await respond(client)
    await answer(pool)
    resources: Resources = api.app.state.resources
    await resources.redis.flushall()
    path = f"{RESPONSES}/{response['id']}"
    frames = await _frames(client, f"{path}?stream=true")
    assert [frame["type"].removeprefix("response.") for frame in frames] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert frames[-1]["response"] == (await client.get(path)).json()


async def _has_run(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/v1/runs")).json()["data"])


async def _frames(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """The whole stream, once it has ended."""
    lines = (await client.get(path)).text.splitlines()
    return [msgspec.json.decode(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_stream_names_its_response_before_a_worker_has_it(client: httpx.AsyncClient) -> None:
    """Whoever loses the connection while the run is queued knows what to ask for."""
    async with client.stream("POST", RESPONSES, json={"input": "hello", "stream": True}) as answer:
        line = await anext(line async for line in answer.aiter_lines() if line.startswith("data: "))
    created = msgspec.json.decode(line.removeprefix("data: "))
    assert (created["type"], created["sequence_number"]) == ("response.created", 0)
    assert (await client.get(f"{RESPONSES}/{created['response']['id']}")).json() == created["response"]
