"""What `useChat` asks of the server, without the package: posts, streams, and the messages to begin with."""

import itertools
from typing import Any

import httpx
import msgspec

CHAT = "aBcDeFgHiJkLmNoP"
_names = itertools.count(1)


def said(text: str, name: str | None = None) -> dict[str, Any]:
    """A user's message as `useChat` makes it."""
    return {"id": name or f"msg-{next(_names)}", "role": "user", "parts": [{"type": "text", "text": text}]}


async def post(client: httpx.AsyncClient, *messages: dict[str, Any], chat: str = CHAT, **body: Any) -> httpx.Response:
    """The answer's head; of a stream nothing is read."""
    request = {"id": chat, "messages": list(messages), "trigger": "submit-message", **body}
    async with client.stream("POST", "/ai/chat", json=request) as response:
        if response.status_code != 200:
            await response.aread()
        return response


async def begin(client: httpx.AsyncClient, *messages: dict[str, Any], **body: Any) -> str:
    """The id of the run that the post has begun, or has found."""
    response = await post(client, *messages, **body)
    assert response.status_code == 200, response.text
    [conversation] = (await client.get("/v1/conversations")).json()["data"]
    detail = (await client.get(f"/v1/conversations/{conversation['id']}")).json()
    return str(detail["lastRun"]["id"])


async def chunks(
    client: httpx.AsyncClient, method: str = "GET", path: str = f"/ai/chat/{CHAT}/stream", **request: Any
) -> list[Any]:
    """All chunks of a stream, once it has ended cleanly."""
    async with client.stream(method, path, **request) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        frames = (await response.aread()).decode().removeprefix(":ok\n").split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [msgspec.json.decode(frame.removeprefix("data: ")) for frame in frames[:-2]]


async def shown(client: httpx.AsyncClient, chat: str = CHAT) -> list[tuple[str, str]]:
    """Role and text of the messages that the chat begins with."""
    return [
        (message["role"], "".join(part.get("text", "") for part in message["parts"]))
        for message in await messages(client, chat)
    ]


async def messages(client: httpx.AsyncClient, chat: str = CHAT) -> list[Any]:
    """The messages that a page begins with."""
    response = await client.get(f"/ai/chat/{chat}/messages")
    assert response.status_code == 200, response.text
    return list(response.json())


async def runs(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Id and state of all runs, oldest first."""
    page = (await client.get("/v1/runs")).json()["data"]
    return [(run["id"], run["state"]) for run in reversed(page)]
