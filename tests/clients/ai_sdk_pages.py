"""Pages that use the AI SDK's packages, spoken with from a test."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.ids import new_id
from tests.clients.node import NodeScript, node_script
from tests.support.system import Client

_DOCUMENTATION = Path(__file__).parents[2] / "docs/clients/ai-sdk.md"


class Chat:
    """A page with a chat on it."""

    def __init__(self, script: NodeScript) -> None:
        self.script = script

    def begin(self, do: str, **given: Any) -> None:
        """Asks for something whose end is not awaited."""
        self.script.tell({"do": do, **given})

    async def do(self, do: str, **given: Any) -> dict[str, Any]:
        """What the chat is like once it has done so: `status`, `error` and `messages`."""
        self.begin(do, **given)
        return await self.script.next(do)

    async def shows(self, words: int) -> str:
        """The last message's text, once it has so many words."""
        while len((text := text_of((await self.script.next("shown"))["message"])).split()) < words:
            pass
        return text

    def requests(self) -> list[dict[str, Any]]:
        """What it has asked the server for."""
        return [line for line in self.script.seen if line["event"] == "request"]


@asynccontextmanager
async def chat(
    version: str, client: Client, chat_id: str | None = None, *, url: str = "", load: bool = False, **body: Any
) -> AsyncIterator[Chat]:
    """A page whose requests carry `body` along, as an application's `body` does; `load`: it begins with the messages
    that the server has."""
    headers = {"Authorization": client.headers["authorization"]}
    if version == "ai_sdk_7":
        headers["X-AI-SDK-Version"] = "7"
    settings = {
        "api": f"{url or client.url}/ai/chat",
        "id": chat_id or str(new_id()),
        "headers": headers,
        "body": {"provider": "anthropic", **body},
        "load": load,
    }
    async with node_script(version, "chat.mjs", {"CHAT": json.dumps(settings)}) as script:
        await script.next("ready")
        yield Chat(script)


@asynccontextmanager
async def documented_page(client: Client, chat_id: str) -> AsyncIterator[NodeScript]:
    """The page of docs/clients/ai-sdk.md, rendered by React, with `useChat` itself."""
    [source] = re.findall(r"```jsx\n(.*?)```", _DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    token = client.headers["authorization"].removeprefix("Bearer ")
    page = {"source": source, "api": f"{client.url}/ai/chat", "token": token, "hash": f"#{chat_id}"}
    async with node_script("ai_sdk_7", "page.mjs", {"PAGE": json.dumps(page)}) as script:
        yield script


async def page_with(script: NodeScript, text: str) -> str:
    """What the page shows, once it has this text."""
    while text not in (shown := (await script.next("page"))["text"]):
        pass
    return str(shown)


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def kinds_of(message: dict[str, Any]) -> list[str]:
    return [part["type"] for part in message["parts"]]
