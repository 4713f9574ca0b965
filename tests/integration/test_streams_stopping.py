"""A server that is about to stop: nobody is told that nothing has happened after something has."""

from typing import Any

import httpx
import pytest

from api.routes import ai_sdk, messages, openai
from tests.support.api_client import LiveApi, make_conversation
from tests.support.openai_api import RESPONSES

EVENTS = {"accept": "text/event-stream"}
CHAT = {
    "id": "a-chat",
    "trigger": "submit-message",
    "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}],
}
ASKED = {
    "native": ("{conversation}/messages", {"content": "hello"}, messages, "start_run"),
    "ai sdk": ("/ai/chat", CHAT, ai_sdk, "post_chat"),
    "openai, streamed": (RESPONSES, {"input": "hello", "stream": True}, openai, "respond"),
    "openai, plain": (RESPONSES, {"input": "hello"}, openai, "respond"),
}
each = pytest.mark.parametrize(("path", "body", "module", "command"), ASKED.values(), ids=ASKED)


async def _runs(client: httpx.AsyncClient) -> int:
    return len((await client.get("/v1/runs")).json()["data"])


async def _path(client: httpx.AsyncClient, path: str) -> str:
    return path.format(conversation=f"/v1/conversations/{await make_conversation(client)}")


@each
async def test_server_that_stops_begins_nothing_that_it_cannot_tell(
    api: LiveApi, client: httpx.AsyncClient, path: str, body: dict[str, Any], module: Any, command: str
) -> None:
    """503 with Retry-After, and no run: the same request may go to another server."""
    path = await _path(client, path)
    api.app.state.resources.hub.closing = True
    refused = await client.post(path, json=body, headers=EVENTS)
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert await _runs(client) == 0


@each
async def test_server_that_stops_in_mid_request_does_not_invite_another_try(
    api: LiveApi,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    module: Any,
    command: str,
) -> None:
    """A stream begins and breaks off, as any may; what is no stream names the response, and forbids a repetition."""
    path = await _path(client, path)
    carry_out = getattr(module, command)

    async def carry_out_late(*arguments: Any) -> Any:
        done = await carry_out(*arguments)
        api.app.state.resources.hub.closing = True
        return done

    monkeypatch.setattr(module, command, carry_out_late)
    if path == RESPONSES and "stream" not in body:
        refused = await client.post(path, json=body)
        assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "false")
        assert "retrieve resp_" in refused.json()["error"]["message"]
    else:
        async with client.stream("POST", path, json=body, headers=EVENTS) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()
    assert await _runs(client) == 1
