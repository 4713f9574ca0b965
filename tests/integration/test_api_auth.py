"""Who may ask for what, over HTTP. What makes a token good is in the unit tests."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.config import Settings
from common.ids import new_id
from tests.support.api_client import LiveApi, live_api, make_conversation, make_token, post_message, refusal_of


async def test_request_without_a_good_token_is_unauthorized(api: LiveApi) -> None:
    """401 with the challenge that HTTP asks for, whatever stands in the header."""
    nobody = await api.client()
    for authorization in (
        None,
        b"",
        b"Bearer",
        b"Basic YTpi",
        b"Bearer a.b.c",
        b"Bearer \xff\xfe",
        b"Bearer " + b"a" * 9000,
        b"Token x",
    ):
        headers = [] if authorization is None else [(b"Authorization", authorization)]
        for path in ("/v1/agents", f"/v1/runs/{new_id()}", "/v1/models"):
            answer = await nobody.get(path, headers=headers)
            assert refusal_of(answer) == (401, "unauthorized"), authorization
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_token_comes_before_the_body(api: LiveApi) -> None:
    """Who is nobody learns nothing of what is wrong with the rest of the request."""
    answer = await (await api.client()).post("/v1/agents", content=b"\xff")

    assert refusal_of(answer) == (401, "unauthorized")


async def test_workspace_may_be_named_in_three_ways(api: LiveApi) -> None:
    """Header, `workspaceId`, `workspace_id`; the header wins. The token's only one needs no name."""
    first, second = new_id(), new_id()
    both = await api.client(make_token(api.settings.jwt_secret, (first, "member"), (second, "member")))
    only = await api.member(first)
    agent_id = (await only.post("/v1/agents", json={"name": "Ada"})).json()["id"]

    async def finds(params: dict[str, str], headers: dict[str, str]) -> bool:
        answer = await both.get(f"/v1/agents/{agent_id}", params=params, headers=headers)
        return answer.status_code == 200

    assert await finds({}, {"X-Workspace-Id": str(first)})
    assert await finds({"workspaceId": str(first)}, {})
    assert await finds({"workspace_id": str(first).upper()}, {})
    assert await finds({"workspaceId": str(second)}, {"X-Workspace-Id": str(first)})
    assert not await finds({"workspaceId": str(second)}, {})
    assert (await only.get(f"/v1/agents/{agent_id}")).status_code == 200


async def test_workspace_that_cannot_be_told_is_refused(api: LiveApi) -> None:
    """Several and none named: 400; malformed: 400; not a member, or a member of none: 403."""
    secret = api.settings.jwt_secret
    both = await api.client(make_token(secret, (new_id(), "member"), (new_id(), "member")))
    none = await api.client(make_token(secret))

    assert refusal_of(await both.get("/v1/agents")) == (400, "workspace_required")
    for name in ("x", "", "{" + str(new_id()) + "}", "urn:uuid:" + str(new_id()), new_id().hex):
        answer = await both.get("/v1/agents", headers={"X-Workspace-Id": name})
        assert refusal_of(answer) == (400, "invalid_request"), name
    assert refusal_of(await both.get("/v1/agents", headers={"X-Workspace-Id": str(new_id())})) == (403, "forbidden")
    assert refusal_of(await none.get("/v1/agents")) == (403, "forbidden")


async def test_viewer_reads_and_changes_nothing(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """Every read is allowed, every write is 403, and nothing has changed."""
    viewer = await api.member(workspace_id, "viewer")
    agent_id = (await client.post("/v1/agents", json={"name": "Ada"})).json()["id"]
    conversation_id = await make_conversation(client, title="T")
    posted = await post_message(client, conversation_id)
    run_id, message_id = posted["run"]["id"], posted["message"]["id"]
    conversation = f"/v1/conversations/{conversation_id}"

    for path in (
        f"/v1/agents/{agent_id}",
        "/v1/agents",
        conversation,
        "/v1/conversations",
        f"{conversation}/messages",
        f"/v1/runs/{run_id}",
        "/v1/runs",
        "/v1/models",
        "/v1/tools",
    ):
        assert (await viewer.get(path)).status_code == 200, path
    before = (await client.get(conversation)).content
    for method, path, body in (
        ("POST", "/v1/agents", {"name": "x"}),
        ("PATCH", f"/v1/agents/{agent_id}", {"name": "x"}),
        ("DELETE", f"/v1/agents/{agent_id}", None),
        ("POST", "/v1/conversations", {}),
        ("PATCH", conversation, {"title": "x"}),
        ("DELETE", conversation, None),
        ("POST", f"{conversation}/messages", {"content": "x"}),
        ("PUT", f"{conversation}/messages/{message_id}", {"content": "x"}),
        ("POST", f"{conversation}/messages/{message_id}/regenerate", {}),
        ("POST", f"/v1/runs/{run_id}/cancel", None),
    ):
        assert refusal_of(await viewer.request(method, path, json=body)) == (403, "forbidden"), path
    assert (await client.get(conversation)).content == before
    assert len((await client.get("/v1/agents")).json()["data"]) == 1


@pytest.mark.parametrize("role", ["owner", "admin", "member"])
async def test_other_roles_may_write(api: LiveApi, role: str) -> None:
    """Owner, admin and member alike."""
    assert (await (await api.member(new_id(), role)).post("/v1/agents", json={"name": "Ada"})).status_code == 201


async def test_keys_of_the_issuer_are_fetched_from_its_address(settings: Settings, workspace_id: UUID) -> None:
    """With JWT_JWKS_URL the server fetches the keys itself, once for many requests at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key(), as_dict=False)) | {"kid": "k"}
    fetches = 0

    def serve() -> bytes:
        nonlocal fetches
        fetches += 1
        return json.dumps({"keys": [jwk]}).encode()

    payload: dict[str, Any] = {
        "sub": "alice",
        "aud": "authenticated",
        "exp": int(time.time()) + 60,
        "workspaces": [{"workspace_id": str(workspace_id), "role": "member"}],
    }
    token = jwt.encode(payload, key, "ES256", headers={"kid": "k"})
    async with _serving(serve) as url, live_api(_with_issuer(settings, url)) as api:
        client = await api.client(token)
        answers = await asyncio.gather(*(client.get("/v1/agents") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert fetches == 1


async def test_issuer_that_is_down_from_the_start_is_a_503(settings: Settings) -> None:
    """Nobody can tell yet whether a token is good: try again, not "unauthorized"."""
    key = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode(
        {"sub": "a", "aud": "authenticated", "exp": time.time() + 60}, key, "ES256", headers={"kid": "k"}
    )
    async with live_api(_with_issuer(settings, "http://127.0.0.1:1/jwks")) as api:
        answer = await (await api.client(token)).get("/v1/agents")

    assert refusal_of(answer) == (503, "unavailable")


def _with_issuer(settings: Settings, url: str) -> Settings:
    return msgspec.structs.replace(settings, jwt_secret="", jwt_jwks_url=url)


@asynccontextmanager
async def _serving(body: Callable[[], bytes]) -> AsyncIterator[str]:
    """The address of a server that answers every request with `body`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        content = body()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
