"""The OpenAPI document and its page."""

import re
from typing import Any, get_args
from uuid import UUID

import httpx
import msgspec
import pytest

from api.errors import STATUS
from common.errors import ErrorCode
from common.model.events import Event
from common.model.messages import Usage
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, post_message
from tests.support.hand_worker import answer
from tests.support.metered import meter


@pytest.fixture
async def document(api: LiveApi) -> Any:
    """The OpenAPI document as it is served."""
    nobody = await api.client()
    return (await nobody.get("/schema/openapi.json")).json()


async def test_document_lists_routes_shapes_and_error_codes(api: LiveApi) -> None:
    """OpenAPI 3.1 with every public route, the error codes as one enum, and no form of errors but ours."""
    nobody = await api.client()

    answer = await nobody.get("/schema/openapi.json")

    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["schemas"]["ErrorCode"]["enum"]) == set(ErrorCode)
    served = {path for path in document["paths"] if path.startswith("/v1")}
    assert served == {
        "/v1/agents",
        "/v1/agents/{agent_id}",
        "/v1/conversations",
        "/v1/conversations/{conversation_id}",
        "/v1/conversations/{conversation_id}/messages",
        "/v1/conversations/{conversation_id}/messages/{message_id}",
        "/v1/conversations/{conversation_id}/messages/{message_id}/regenerate",
        "/v1/conversations/{conversation_id}/stream",
        "/v1/documents",
        "/v1/documents/{document_id}",
        "/v1/documents/{document_id}/history",
        "/v1/documents/{document_id}/restore",
        "/v1/models",
        "/v1/ops/failed-runs",
        "/v1/ops/history",
        "/v1/ops/runs/{run_id}/requeue",
        "/v1/ops/summary",
        "/v1/ops/workspaces",
        "/v1/runs",
        "/v1/runs/{run_id}",
        "/v1/runs/{run_id}/cancel",
        "/v1/runs/{run_id}/stream",
        "/v1/tickets",
        "/v1/tools",
        "/v1/usage",
    }
    for path in served:
        for operation in document["paths"][path].values():
            for status, described in operation["responses"].items():
                if int(status) >= 400:
                    [content] = described["content"].values()
                    assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}, (path, status)


async def test_reference_page_loads_nothing_from_elsewhere(api: LiveApi) -> None:
    """One page of HTML with every route in it, and no address of another server."""
    nobody = await api.client()

    page = await nobody.get("/schema")

    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/conversations/{conversation_id}/messages" in page.text
    links = set(re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", page.text))
    assert {link for link in links if not link.startswith("#")} == {"/schema/openapi.json", "data:,"}
    assert not re.search(r"//\w|<script|@import|url\(", page.text)


async def test_reference_page_lists_its_contents(api: LiveApi) -> None:
    """Every link within the page leads to a place in it, and every operation and shape is linked."""
    nobody = await api.client()

    page = (await nobody.get("/schema")).text

    places = set(re.findall(r'<section id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) == places
    assert {"postMessage", "NewMessage", "Event"} <= places
    assert "`" not in page


async def test_document_names_every_shape_it_refers_to(document: Any) -> None:
    """No reference leads nowhere, no shape is left over, and the names are those of the contract."""
    shapes = set(document["components"]["schemas"])

    assert set(re.findall(r'#/components/schemas/([^"]+)"', msgspec.json.encode(document).decode())) == shapes
    assert {name for name in shapes if not name.isalnum()} == set()
    assert {"AgentPage", "ConversationDetail", "StepEvent", "EventMessage"} <= shapes


async def test_document_says_which_operation_does_what(document: Any) -> None:
    """Each operation has a name of its own and a sentence; no text leads into the source."""
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]

    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"listAgents", "postMessage", "streamRun"} <= set(names)
    assert all(re.fullmatch(r"[A-Z].*\.", operation["summary"]) for operation in operations)
    assert not re.search(r"\.(py|md|sql)\b", msgspec.json.encode(document).decode())


async def test_document_requires_every_field_of_an_answer(
    document: Any, client: httpx.AsyncClient, pool: Pool, workspace_id: UUID
) -> None:
    """What an answer carries is what its shape requires, no more and no less."""
    shapes = document["components"]["schemas"]
    conversation_id = await make_conversation(client)
    accepted = await post_message(client, conversation_id)
    await answer(pool)
    detail = (await client.get(f"/v1/conversations/{conversation_id}")).json()
    agent = (await client.post("/v1/agents", json={"name": "A"})).json()
    page = (await client.get("/v1/agents")).json()
    document_detail = (await client.post("/v1/documents", json={"name": "D", "content": "text"})).json()
    history = (await client.get(f"/v1/documents/{document_detail['id']}/history")).json()
    await meter(pool, workspace_id, "2026-11-01T12:00:00Z", Usage())
    usage = (await client.get("/v1/usage", params={"to": "2026-11-01"})).json()

    for name, found in [
        ("Accepted", accepted),
        ("Run", accepted["run"]),
        ("Timings", accepted["run"]["timings"]),
        ("Message", detail["messages"][1]),
        ("Usage", detail["messages"][1]["usage"]),
        ("ConversationDetail", detail),
        ("Agent", agent),
        ("AgentPage", page),
        ("DocumentDetail", document_detail),
        ("DocumentEdit", history["data"][0]),
        ("UsageReport", usage),
        ("UsageGroup", usage["data"][0]),
        ("UsageSum", usage["total"]),
    ]:
        assert set(shapes[name]["required"]) == set(shapes[name]["properties"]) == set(found), name
    assert shapes["AgentSettings"]["required"] == []


async def test_document_describes_the_events_of_streams(document: Any) -> None:
    """Every stream refers to the union of all events, whose optional fields may be absent and are never null."""
    shapes = document["components"]["schemas"]

    streams = [
        body["schema"]
        for methods in document["paths"].values()
        for operation in methods.values()
        for media_type, body in operation["responses"].get("200", {}).get("content", {}).items()
        if media_type == "text/event-stream"
    ]
    assert len(streams) == 4
    assert all(stream["contentSchema"] == {"$ref": "#/components/schemas/Event"} for stream in streams)
    kinds = {event.__struct_config__.tag for event in get_args(Event)}
    assert set(shapes["Event"]["discriminator"]["mapping"]) == kinds
    names = [part["$ref"].rpartition("/")[2] for part in shapes["Event"]["oneOf"]]
    assert len(names) == len(kinds)
    for name in [*names, "EventMessage"]:
        assert b'"null"' not in msgspec.json.encode(shapes[name]["properties"]), name
    assert set(shapes["EventMessage"]["required"]) < set(shapes["EventMessage"]["properties"])


def test_every_error_code_has_a_status() -> None:
    """No code can be raised that the map does not know."""
    assert set(STATUS) == set(ErrorCode)
