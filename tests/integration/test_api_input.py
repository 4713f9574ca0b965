"""Bad input: always a clear 4xx, never a 500, and nothing is written."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest
import structlog

from api.pagination import ListCursor
from common.ids import new_id
from tests.support.api_client import make_conversation, post_message, refusal_of
from tests.support.eventually import eventually

TABLES = ("agents", "conversations", "messages", "runs", "idempotency_keys", "tickets")
JSON = {"Content-Type": "application/json"}


class Target(NamedTuple):
    """Every route that takes a body, and a body that it accepts."""

    method: str
    path: str
    body: dict[str, Any]


@pytest.fixture
async def targets(client: httpx.AsyncClient) -> list[Target]:
    agent_id = (await client.post("/v1/agents", json={"name": "Ada"})).json()["id"]
    conversation_id = await make_conversation(client)
    posted = await post_message(client, conversation_id, run=False)
    run = (await post_message(client, await make_conversation(client)))["run"]
    messages = f"/v1/conversations/{conversation_id}/messages"
    return [
        Target("POST", "/v1/agents", {"name": "x"}),
        Target("PATCH", f"/v1/agents/{agent_id}", {"name": "x"}),
        Target("POST", "/v1/conversations", {}),
        Target("PATCH", f"/v1/conversations/{conversation_id}", {"title": "x"}),
        Target("POST", messages, {"content": "x", "run": False}),
        Target("PUT", f"{messages}/{posted['message']['id']}", {"content": "x"}),
        Target("POST", f"{messages}/{posted['message']['id']}/regenerate", {"model": "x"}),
        Target("POST", "/v1/tickets", {"runId": run["id"]}),
    ]


@pytest.fixture
async def unchanged(database_url: str, targets: list[Target]) -> AsyncIterator[None]:
    """Fails a test after which any row is not what it was before."""
    owner = await asyncpg.connect(database_url)

    async def rows() -> list[Any]:
        return [await owner.fetch(f"select t::text from {table} t order by 1") for table in TABLES]

    before = await rows()
    yield
    after = await rows()
    await owner.close()
    assert after == before


@pytest.mark.usefixtures("unchanged")
async def test_body_that_is_no_json_is_refused_by_every_route(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """Bad UTF-8, bad JSON, deep nesting, wrong kinds, NUL, lone surrogates, unknown fields: 400 everywhere."""
    for target in targets:
        good = json.dumps(target.body)[:-1]
        comma = ", " if target.body else ""
        for body in (
            b"{",
            b"nonsense",
            b"\xff\xfe{}",
            b"\xef\xbb\xbf{}",
            b"[]",
            b"null",
            b'"text"',
            b"7",
            b"[" * 2000 + b"]" * 2000,
            b"[" * 100_000,
            b'{"a":' * 500 + b"1" + b"}" * 500,
            f'{good}{comma}"unknown": 1}}'.encode(),
            f'{good}{comma}"deep": {"[" * 64}{"]" * 64}}}'.encode(),
            f'{good}{comma}"\\u0000": 1}}'.encode(),
            f"{good}}} {{}}".encode(),
            good.encode() + b"}\x00",
        ):
            answer = await client.request(target.method, target.path, content=body, headers=JSON)
            assert refusal_of(answer) == (400, "invalid_request"), (target, body[:60])


@pytest.mark.usefixtures("unchanged")
async def test_text_that_postgres_cannot_store_is_refused(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """U+0000 and lone surrogates in any text: 400, and the message says so."""
    for target in targets:
        for text in ("\\u0000", "a\\u0000b", "\\ud800", "\\udc00", "\\ud800\\ud800", "\\udc00\\ud800"):
            for name, value in target.body.items():
                if not isinstance(value, str):
                    continue
                body = json.dumps({**target.body, name: "@"}).replace("@", text).encode()
                answer = await client.request(target.method, target.path, content=body, headers=JSON)
                assert refusal_of(answer) == (400, "invalid_request"), (target, text)


@pytest.mark.usefixtures("unchanged")
async def test_body_of_another_media_type_is_refused(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """Only JSON in UTF-8 is read; anything else is 415."""
    for target in targets:
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""):
            answer = await client.request(
                target.method, target.path, content=json.dumps(target.body), headers={"Content-Type": media_type}
            )
            assert refusal_of(answer) == (415, "unsupported_media_type"), (target, media_type)


@pytest.mark.usefixtures("unchanged")
async def test_body_over_a_megabyte_is_refused(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """413, whether its length is announced or not."""
    for target in targets:
        body = json.dumps({**target.body, "padding": "x" * 1_000_000}).encode()

        async def chunks(body: bytes = body) -> AsyncIterator[bytes]:
            for start in range(0, len(body), 50_000):
                yield body[start : start + 50_000]

        for content in (body, chunks()):
            answer = await client.request(target.method, target.path, content=content, headers=JSON)
            assert refusal_of(answer) == (413, "payload_too_large"), target


@pytest.mark.usefixtures("unchanged")
async def test_endless_body_is_answered_while_it_is_still_sent(client: httpx.AsyncClient) -> None:
    """The server does not wait for the end of a body that is too long already."""
    url = urlsplit(str(client.base_url))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = "POST /v1/agents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    writer.write(f"{head}Authorization: {client.headers['authorization']}\r\n\r\n".encode())
    for _ in range(1100):
        writer.write(b"3e8\r\n" + b" " * 1000 + b"\r\n")
    await writer.drain()

    async with asyncio.timeout(5):
        status = await reader.readline()
    writer.close()

    assert b" 413 " in status


@pytest.mark.usefixtures("unchanged")
async def test_client_that_leaves_within_its_body_is_no_error_of_ours(client: httpx.AsyncClient) -> None:
    """Half a request is counted as a bad one, and not logged as a failure."""
    url = urlsplit(str(client.base_url))
    head = "POST /v1/agents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    with structlog.testing.capture_logs() as logs:
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(f"{head}Authorization: {client.headers['authorization']}\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()

        async def counted() -> bool:
            return 'method="POST",route="/v1/agents",status="400"' in (await client.get("/metrics")).text

        await eventually(counted)
    assert logs == []


@pytest.mark.usefixtures("unchanged")
async def test_text_made_to_be_slow_is_refused_fast(client: httpx.AsyncClient) -> None:
    """A megabyte of quotes, escapes and brackets costs no more than any other body."""
    begun = time.monotonic()
    for body in (
        b'{"name": "' + rb"\"" * 450_000,
        b"[" * 100 + b'"' + rb"\"" * 450_000,
        b'["",' * 240_000,
        b"[]" * 490_000,
    ):
        answer = await client.post("/v1/agents", content=body, headers=JSON)
        assert refusal_of(answer) == (400, "invalid_request")
    assert time.monotonic() - begun < 8


FIELDS: list[tuple[int, dict[str, Any], str]] = [
    (0, {}, "name"),
    (0, {"name": ""}, "name"),
    (0, {"name": "x" * 201}, "name"),
    (0, {"name": 7}, "name"),
    (0, {"name": None}, "name"),
    (0, {"name": "x", "maxSteps": 0}, "maxSteps"),
    (0, {"name": "x", "maxSteps": 101}, "maxSteps"),
    (0, {"name": "x", "maxSteps": "7"}, "maxSteps"),
    (0, {"name": "x", "maxSteps": 1.5}, "maxSteps"),
    (0, {"name": "x", "tools": "all"}, "tools"),
    (0, {"name": "x", "tools": [1]}, "tools"),
    (0, {"name": "x", "tools": ["a"] * 129}, "tools"),
    (0, {"name": "x", "settings": {"temperature": "hot"}}, "temperature"),
    (0, {"name": "x", "settings": {"temperature": -1}}, "temperature"),
    (0, {"name": "x", "settings": {"maxTokens": 0}}, "maxTokens"),
    (0, {"name": "x", "settings": {"maxTokens": 10**30}}, "maxTokens"),
    (0, {"name": "x", "settings": {"unknown": 1}}, "unknown"),
    (0, {"name": "x", "max_steps": 3}, "max_steps"),
    (0, {"name": "x", "provider": ""}, "provider"),
    (0, {"name": "x", "model": "x" * 201}, "model"),
    (1, {"name": None}, "name"),
    (1, {"id": str(new_id())}, "id"),
    (2, {"title": "x" * 201}, "title"),
    (2, {"title": 7}, "title"),
    (2, {"agentId": "x"}, "agentId"),
    (2, {"workspaceId": str(new_id())}, "workspaceId"),
    (3, {"pinned": "yes"}, "pinned"),
    (3, {"archived": 1}, "archived"),
    (3, {"pinnedAt": None}, "pinnedAt"),
    (4, {"run": False}, "content"),
    (4, {"content": ""}, "content"),
    (4, {"content": None}, "content"),
    (4, {"content": ["x"]}, "content"),
    (4, {"content": "x", "role": "tool"}, "role"),
    (4, {"content": "x", "role": "assistant"}, "run"),
    (4, {"content": "x", "run": "true"}, "run"),
    (4, {"content": "x", "ifBusy": "wait"}, "ifBusy"),
    (4, {"content": "x", "priority": "urgent"}, "priority"),
    (5, {}, "content"),
    (5, {"content": ""}, "content"),
    (6, {"ifBusy": "enqueue"}, "ifBusy"),
    (6, {"priority": 1}, "priority"),
    (6, {"content": "x"}, "content"),
    (7, {}, "runId"),
    (7, {"runId": "x"}, "runId"),
]


@pytest.mark.usefixtures("unchanged")
async def test_wrong_field_is_named(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """400, and the message says which field is wrong."""
    for index, body, field in FIELDS:
        answer = await client.request(targets[index].method, targets[index].path, json=body)
        assert refusal_of(answer) == (400, "invalid_request"), body
        assert field in answer.json()["error"]["message"], body


@pytest.mark.usefixtures("unchanged")
async def test_wrong_query_parameter_is_named(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """400, and the message says which parameter is wrong; bytes that are no text are no reason for an error of ours."""
    for query, name in (
        ("/v1/agents?limit=0", "limit"),
        ("/v1/agents?limit=101", "limit"),
        ("/v1/agents?limit=x", "limit"),
        ("/v1/agents?limit=", "limit"),
        ("/v1/agents?limit=1e3", "limit"),
        (f"/v1/agents?limit={'9' * 5000}", "limit"),
        ("/v1/conversations?archived=perhaps", "archived"),
        ("/v1/conversations?pinned=2", "pinned"),
        (f"/v1/conversations?q={'x' * 201}", "q"),
        ("/v1/conversations?q=%00", "q"),
        ("/v1/runs?state=done", "state"),
        ("/v1/runs?conversationId=x", "conversationId"),
        ("/v1/agents?cursor=x", "cursor"),
        (f"/v1/agents?cursor={'A' * 401}", "cursor"),
        ("/v1/agents?workspaceId=x", "Workspace"),
    ):
        answer = await client.get(query)
        assert answer.status_code == 400, query
        assert refusal_of(answer)[1] in ("invalid_request", "invalid_cursor")
        assert name in answer.json()["error"]["message"], query
    for query in (
        "/v1/conversations?q=%ff%fe",
        "/v1/conversations?q=%ed%a0%80",
        "/v1/agents?%00=%ff",
        "/v1/agents?limit=1&limit=2",
    ):
        assert (await client.get(query)).status_code < 500, query


async def test_cursor_made_by_hand_is_no_error_of_ours(client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """Whoever knows how cursors are made gets no further with one: it is refused, or leads past one's own things."""
    conversation_id = await make_conversation(client)
    document_id = (await client.post("/v1/documents", json={"name": "D", "content": "x"})).json()["id"]
    messages = ListCursor("messages", workspace_id, UUID(conversation_id), False)
    edits = ListCursor("document edits", workspace_id, UUID(document_id))
    agents = ListCursor("agents", workspace_id)
    edges = (-(2**63), -1, 0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1)
    days = [day.replace(tzinfo=UTC) for day in (datetime.min, datetime.max)]
    made = [
        *((f"conversations/{conversation_id}/messages", messages.write((edge, edge))) for edge in edges),
        *((f"documents/{document_id}/history", edits.write((edge,))) for edge in edges),
        *(("agents", agents.write((day, new_id()))) for day in days),
    ]
    statuses = set()
    for path, cursor in made:
        found = await client.get(f"/v1/{path}", params={"cursor": cursor})
        assert found.status_code == 200 or refusal_of(found) == (400, "invalid_cursor"), (path, cursor)
        statuses.add(found.status_code)
    assert statuses == {200, 400}


@pytest.mark.usefixtures("unchanged")
async def test_wrong_route_or_method_has_the_one_form_of_errors(
    client: httpx.AsyncClient, targets: list[Target]
) -> None:
    """404 and 405 are errors like all others."""
    for path in ("/nothing", "/v1", "/v1/nothing", "/v2/agents", f"/v1/agents/{new_id()}/x"):
        assert refusal_of(await client.get(path)) == (404, "not_found"), path
    for method, path in (
        ("PUT", "/v1/agents"),
        ("DELETE", "/v1/runs"),
        ("PATCH", "/v1/tickets"),
        ("POST", "/v1/models"),
    ):
        assert refusal_of(await client.request(method, path)) == (405, "method_not_allowed"), path


@pytest.mark.usefixtures("unchanged")
async def test_strange_headers_are_no_error_of_ours(client: httpx.AsyncClient, targets: list[Target]) -> None:
    """Bytes that are no text in any header are refused or ignored."""
    for name in (b"X-Workspace-Id", b"Accept", b"Content-Type", b"Idempotency-Key", b"Last-Event-ID", b"Cookie"):
        for value in (b"\xff\xfe", b"\x80", b"a" * 5000, b"=;=;"):
            answer = await client.post("/v1/agents", content=b"{}", headers=[(name, value)])
            assert 400 <= answer.status_code < 500, (name, value)
