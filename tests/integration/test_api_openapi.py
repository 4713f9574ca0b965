"""The OpenAPI document and its page."""

import re

from api.errors import STATUS
from common.errors import ErrorCode
from tests.support.api_client import LiveApi


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
        "/v1/models",
        "/v1/runs",
        "/v1/runs/{run_id}",
        "/v1/runs/{run_id}/cancel",
        "/v1/runs/{run_id}/stream",
        "/v1/tickets",
        "/v1/tools",
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
    assert re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", page.text)[0] == "/schema/openapi.json"
    assert not re.search(r"//\w|<script|@import|url\(", page.text)


def test_every_error_code_has_a_status() -> None:
    """No code can be raised that the map does not know."""
    assert set(STATUS) == set(ErrorCode)
