"""Query parameters: an operation has those that it lists, and no others."""

import httpx
import pytest

from api.query import WORKSPACE_NAMES
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, post_message, refusal_of
from tests.support.crawl import operations
from tests.support.hand_worker import answer


async def test_unknown_parameter_is_refused_by_every_operation(api: LiveApi, client: httpx.AsyncClient) -> None:
    """400 that names the parameter and those that there are; the OpenAPI document lists the same."""
    document = (await client.get("/schema/openapi.json")).json()["paths"]
    walked = 0
    for operation in operations(api.app):
        if not operation.path.startswith("/v1/"):
            continue
        path = operation.path.format_map(dict.fromkeys(operation.ids, str(new_id())))
        known = {name for place, name in operation.places if place == "query"}
        listed = document[operation.path][operation.method.lower()].get("parameters", [])
        assert {parameter["name"] for parameter in listed if parameter["in"] == "query"} == known, operation
        for name in ("limti", "Limit", "limit[]"):
            refused = await client.request(operation.method, path, params={name: "1"})
            assert refusal_of(refused) == (400, "invalid_request"), (operation, name)
            message = refused.json()["error"]["message"]
            assert message.startswith(f"{name}: "), (operation, name)
            assert all(one in message for one in known), operation
        walked += 1
    assert walked >= 25


async def test_strange_name_is_refused_as_any_other(client: httpx.AsyncClient) -> None:
    """Empty, of bytes that are no text, or endless, of which only the beginning is said again."""
    for name in (
        "",
        "%00",
        "%ff%fe",
        "%ed%a0%80",
        "%F0%9F%98%80",
        "x" * 50_000,
        "&".join(f"a{n}" for n in range(9000)),
    ):
        refused = await client.get(f"/v1/agents?{name}=1")
        assert refusal_of(refused) == (400, "invalid_request"), name[:20]
        assert len(refused.json()["error"]["message"]) < 200


async def test_path_that_is_spelt_otherwise_is_the_same_operation(client: httpx.AsyncClient) -> None:
    """The router takes doubled and encoded slashes for plain ones; the rule goes by what it found."""
    for path in ("//v1/agents", "/v1//agents", "/v1%2Fagents", "/v1/agents/"):
        url = httpx.URL(str(client.base_url).rstrip("/") + "/", raw_path=f"{path}?limti=1".encode())
        refused = await client.get(url)
        assert refusal_of(refused) == (400, "invalid_request"), path


async def test_null_is_no_value(client: httpx.AsyncClient) -> None:
    """It would be read as if the filter were not there; in a search it is a word."""
    conversation_id = await make_conversation(client, title="null and void")
    for query in (
        "runs?state=null",
        "runs?state=queued&state=NULL",
        "runs?conversationId=Null",
        "conversations?pinned=null",
        f"conversations/{conversation_id}/stream?triggerMessageId=null",
    ):
        refused = await client.get(f"/v1/{query}")
        assert refusal_of(refused) == (400, "invalid_request"), query
        assert "null is no value" in refused.json()["error"]["message"]
    found = await client.get("/v1/conversations?q=null")
    assert [one["id"] for one in found.json()["data"]] == [conversation_id]


async def test_parameter_is_looked_at_after_the_token(api: LiveApi) -> None:
    """Who is nobody learns nothing of what an operation has."""
    nobody = await api.client()

    assert refusal_of(await nobody.get("/v1/agents?limti=1")) == (401, "unauthorized")


@pytest.mark.parametrize("name", sorted(WORKSPACE_NAMES))
async def test_workspace_may_be_named_everywhere(client: httpx.AsyncClient, workspace_id: str, name: str) -> None:
    """In place of a header, on reads and writes alike."""
    query = {name: str(workspace_id)}

    assert (await client.get("/v1/agents", params=query)).status_code == 200
    assert (await client.post("/v1/conversations", json={}, params=query)).status_code == 201


async def test_cursor_may_come_as_polyfills_send_it(client: httpx.AsyncClient, pool: Pool) -> None:
    """`lastEventId` is a cursor as `after` is and wins over it, since it is the newer; the header wins over both."""
    run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
    await answer(pool)

    async def status(headers: dict[str, str] | None = None, **query: str) -> int:
        return (await client.get(f"/v1/runs/{run_id}/stream", params=query, headers=headers)).status_code

    assert await status(lastEventId="1-9") == 204
    assert await status(lastEventId="1-9", after="1-1") == 204
    assert await status(lastEventId="1-1", after="1-9") == 200
    assert await status({"Last-Event-ID": "1-1"}, lastEventId="1-9") == 200
    assert await status(lastEventId="x") == 400


async def test_other_protocols_may_say_more(client: httpx.AsyncClient) -> None:
    """What other projects' clients, probes and links add is passed over."""
    for path in ("/openai/v1/models", "/ai/chat/x/messages", "/health/live", "/schema", "/metrics", "/"):
        assert (await client.get(path, params={"utm_source": "x"})).status_code == 200, path
