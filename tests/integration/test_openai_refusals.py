"""OpenAI's Responses over HTTP: what is refused, how it is said, and that nothing is written."""

from typing import Any
from uuid import UUID

import httpx
import msgspec

from common.config import Settings
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, live_api
from tests.support.hand_worker import answer
from tests.support.openai_api import RESPONSES, conversation_of, refusal_of, respond, run_of, written

NOWHERE = new_id()
NEUTRAL = {
    "store": True,
    "metadata": {},
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "text": {"format": {"type": "text"}},
    "service_tier": "auto",
    "tools": [],
    "include": [],
    "top_logprobs": 0,
    "stream_options": {"include_obfuscation": False},
    "reasoning": {"effort": None, "summary": "auto"},
    "user": None,
    "background": True,
    "stream": False,
}
IMAGE = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]
FUNCTION = {"type": "function", "name": "f", "parameters": {}, "strict": True}
REFUSED: list[tuple[dict[str, Any], str | None]] = [
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"role": "user", "content": "x"}] * 501}, "input"),
    ({"input": 7}, "input"),
    ({"input": [{"role": "user", "content": ""}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
    ({"input": [{"role": "user"}]}, "input[0]"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": "x", "mood": "good"}]}, "input[0]"),
    ({"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "input[1].role"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].type"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ({"input": IMAGE}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": "a\x00b"}, None),
    ({"model": "no-such-model"}, "model"),
    ({"model": "nobody/model"}, "model"),
    ({"model": str(NOWHERE)}, "model"),
    ({"model": "anthropic/claude"}, "model"),
    ({"model": ""}, "model"),
    ({"tools": [FUNCTION]}, "tools"),
    ({"tools": [{"type": "web_search"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"max_tool_calls": 3}, "max_tool_calls"),
    ({"metadata": {"a": "b"}}, "metadata"),
    ({"store": False}, "store"),
    ({"text": {"format": {"type": "json_schema", "name": "s", "schema": {}}}}, "text"),
    ({"text": {"verbosity": "low"}}, "text"),
    ({"truncation": "auto"}, "truncation"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"include": ["reasoning.encrypted_content"]}, "include"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"top_logprobs": False}, "top_logprobs"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"prompt_cache_key": "k"}, "prompt_cache_key"),
    ({"safety_identifier": "s"}, "safety_identifier"),
    ({"user": "u"}, "user"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"reasoning": {"effort": "minimal"}}, "reasoning.effort"),
    ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    ({"reasoning": {"generate_summary": "auto"}}, "reasoning.generate_summary"),
    ({"stream": "yes"}, "stream"),
    ({"n": 2}, "n"),
    ({"messages": []}, "messages"),
    ({"conversation": f"conv_{NOWHERE.hex}", "previous_response_id": f"resp_{NOWHERE.hex}"}, "previous_response_id"),
    ({"conversation": {"name": "x"}}, "conversation.name"),
]


async def test_everything_that_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """400 in OpenAI's form with the field in `param`, and nothing is written."""
    for fields, param in REFUSED:
        answer = await client.post(
            RESPONSES, json={"input": "hello", **fields}, headers={"Idempotency-Key": f"key-{param}"}
        )
        status, _, named = refusal_of(answer)
        assert (status, named) == (400, param), (fields, answer.text)
    assert set((await written(database_url)).values()) == {0}


async def test_body_that_is_no_json_is_refused_in_the_same_form(client: httpx.AsyncClient) -> None:
    """Whatever is wrong, the SDKs find a message where they look for it."""
    json_type = {"Content-Type": "application/json"}
    broken = await client.post(RESPONSES, content=b"{", headers=json_type)
    deep = await client.post(RESPONSES, content=b'{"input":' + b"[" * 100 + b"]" * 100 + b"}", headers=json_type)
    form = await client.post(RESPONSES, content=b"a=b", headers={"Content-Type": "text/plain"})
    missing = await client.post(RESPONSES, json={"model": "echo"})
    lone = await client.post(RESPONSES, content=rb'{"input": "\ud800", "model": "\ud800"}', headers=json_type)
    assert lone.status_code == 400
    assert [refusal_of(answer)[:2] for answer in (broken, deep, form, missing)] == [
        (400, "invalid_request"),
        (400, "invalid_request"),
        (415, "unsupported_media_type"),
        (400, "invalid_request"),
    ]


async def test_neutral_values_are_taken(client: httpx.AsyncClient) -> None:
    """A client that spells out OpenAI's defaults is served."""
    response = await respond(client, **NEUTRAL)
    assert response["status"] == "queued"
    assert response["object"] == "response"
    assert response["output"] == []
    assert response["model"] == "echo/echo"


async def test_name_of_two_agents_is_refused(client: httpx.AsyncClient) -> None:
    """Nobody is chosen by chance; the list of models then names both by their ids."""
    ids = {(await client.post("/v1/agents", json={"name": "Twin"})).json()["id"] for _ in range(2)}
    answer = await client.post(RESPONSES, json={"input": "x", "model": "Twin"})
    assert refusal_of(answer) == (400, "invalid_request", "model")
    listed = {model["id"] for model in (await client.get("/openai/v1/models")).json()["data"]}
    assert ids <= listed
    assert "Twin" not in listed


async def test_response_that_is_not_the_newest_cannot_be_continued(client: httpx.AsyncClient, pool: Pool) -> None:
    """There are no forks: 400, also after a message without a run and for an answer that was replaced."""
    first = await respond(client)
    await answer(pool)
    second = await respond(client, previous_response_id=first["id"])
    await answer(pool)
    path = f"/v1/conversations/{conversation_of(first)}/messages"
    trigger = (await client.get(f"/v1/runs/{run_of(second)}")).json()["triggerMessageId"]
    stale = [first["id"]]
    await client.post(f"{path}/{trigger}/regenerate", json={})
    newest = f"resp_{(await answer(pool)).hex}"
    stale.append(second["id"])
    for response_id in stale:
        refused = await client.post(RESPONSES, json={"input": "x", "previous_response_id": response_id})
        assert refusal_of(refused) == (400, "invalid_request", "previous_response_id")
    await client.post(path, json={"content": "by the way", "run": False})
    refused = await client.post(RESPONSES, json={"input": "x", "previous_response_id": newest})
    assert refusal_of(refused) == (400, "invalid_request", "previous_response_id")


async def test_busy_conversation_is_refused_with_what_keeps_it_busy(client: httpx.AsyncClient) -> None:
    """409, which the SDKs repeat by themselves, names the response that has not ended."""
    first = await respond(client)
    refused = await client.post(RESPONSES, json={"input": "x", "previous_response_id": first["id"]})
    assert refusal_of(refused) == (409, "conversation_busy", None)
    assert first["id"] in refused.json()["error"]["message"]


async def test_ids_of_others_and_malformed_ones_are_the_same_404(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, database_url: str
) -> None:
    """Nothing tells an id that is not there from one of another workspace or one that cannot be, and nothing is
    written.
    """
    foreign = await respond(client)
    before = await written(database_url)
    texts = set()
    for name in (foreign["id"], f"resp_{NOWHERE.hex}", "resp_7", "nonsense", foreign["conversation"]["id"]):
        for refused in (
            await stranger.get(f"{RESPONSES}/{name}"),
            await stranger.get(f"{RESPONSES}/{name}?stream=true"),
            await stranger.post(f"{RESPONSES}/{name}/cancel"),
            await stranger.post(RESPONSES, json={"input": "x", "previous_response_id": name}),
        ):
            assert refusal_of(refused) == (404, "not_found", None)
            texts.add(refused.text)
    for name in (foreign["conversation"]["id"], f"conv_{NOWHERE.hex}", "conv_7", foreign["id"]):
        refused = await stranger.post(RESPONSES, json={"input": "x", "conversation": name})
        assert refusal_of(refused) == (404, "not_found", None)
        texts.add(refused.text)
    assert len(texts) == 1
    assert await written(database_url) == before


async def test_nobody_without_a_token_and_no_viewer_begins_anything(api: LiveApi, workspace_id: UUID) -> None:
    """401 and 403 in OpenAI's form; a viewer may look."""
    nobody, viewer = await api.client(), await api.member(workspace_id, "viewer")
    assert refusal_of(await nobody.post(RESPONSES, json={"input": "x"}))[:2] == (401, "unauthorized")
    assert refusal_of(await nobody.get("/openai/v1/models"))[:2] == (401, "unauthorized")
    assert refusal_of(await viewer.post(RESPONSES, json={"input": "x"}))[:2] == (403, "forbidden")
    assert (await viewer.get("/openai/v1/models")).status_code == 200


async def test_page_of_another_origin_may_send_what_openai_node_sends(settings: Settings, pool: Pool) -> None:
    """A preflight allows each of the package's own headers, and the page may read what it decides by."""
    sent = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,x-stainless-timeout,openai-project"
    async with live_api(msgspec.structs.replace(settings, cors_origins=("https://app.example",))) as api:
        page = await api.client(Origin="https://app.example")
        headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": sent}
        preflight = await page.request("OPTIONS", RESPONSES, headers=headers)
        answered = await page.post(RESPONSES, json={"input": "x"})
    assert preflight.status_code == 204
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert [name for name in sent.split(",") if name not in allowed] == []
    assert "x-should-retry" in answered.headers["access-control-expose-headers"].lower()
