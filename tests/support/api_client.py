"""A live API in this process, and clients of it with tokens of their own."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import jwt
from litestar import Litestar

from api.app import create_app
from api.server import Server
from common.config import Settings
from common.model.run_state import Effect
from common.store.catalogue import Offers, ProviderOffer, ToolOffer, upsert_offers
from common.store.database import Pool
from tests.support.eventually import eventually

OFFERS = Offers(
    providers=[
        ProviderOffer(name="echo", configured=True, models=["echo"], default=True),
        ProviderOffer(name="other", configured=True, models=["other-1", "other-2"]),
        ProviderOffer(name="anthropic", configured=False, missing="ANTHROPIC_API_KEY", models=["claude"]),
    ],
    tools=[
        ToolOffer(name="current_time", description="Tells the time.", parameters={}, effect=Effect.READ),
        ToolOffer(name="send_mail", description="Sends.", parameters={}, effect=Effect.AT_MOST_ONCE),
    ],
)


def make_token(secret: str, *workspaces: tuple[UUID, str], user: str = "alice", **claims: Any) -> str:
    """A token as the issuer would make it; `claims` replace its own, None leaves one out."""
    payload = {
        "sub": user,
        "aud": "authenticated",
        "exp": int(time.time()) + 3600,
        "workspaces": [
            {"workspace_id": str(workspace_id), "workspace_name": "w", "organization_id": "o", "role": role}
            for workspace_id, role in workspaces
        ],
        **claims,
    }
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, "HS256")


class LiveApi:
    """A server that answers on `url`."""

    def __init__(self, url: str, app: Litestar, settings: Settings, stack: AsyncExitStack) -> None:
        self.url = url
        self.app = app
        self.settings = settings
        self._stack = stack

    async def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A client of its own connections, closed with the server."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=15, trust_env=False)
        return await self._stack.enter_async_context(client)

    async def member(self, workspace_id: UUID, role: str = "member", user: str = "alice") -> httpx.AsyncClient:
        """A client of somebody who has just this workspace."""
        return await self.client(make_token(self.settings.jwt_secret, (workspace_id, role), user=user))


@asynccontextmanager
async def live_api(settings: Settings) -> AsyncIterator[LiveApi]:
    """A real server on a port that the system chose, in this event loop."""
    app = create_app(settings)
    # asyncio sends without delay (TCP_NODELAY) only where the protocol is named.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(app)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await eventually(lambda: server.started or serving.done())
            async with AsyncExitStack() as stack:
                yield LiveApi(f"http://127.0.0.1:{listener.getsockname()[1]}", app, settings, stack)
        finally:
            server.should_exit = True
            await serving


async def offer(pool: Pool, offers: Offers = OFFERS) -> None:
    """Writes the catalogue as a worker does at its start."""
    await upsert_offers(pool, "a worker", offers)


async def make_conversation(client: httpx.AsyncClient, **fields: Any) -> str:
    """The id of a new conversation."""
    answer = await client.post("/v1/conversations", json=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def post_message(client: httpx.AsyncClient, conversation_id: str, content: str = "hello", **fields: Any) -> Any:
    """What posting a message is answered, when it is accepted."""
    answer = await client.post(f"/v1/conversations/{conversation_id}/messages", json={"content": content, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


def refusal_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, in the one form that errors have."""
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) - {"details"} == {"code", "message"}, body
    return answer.status_code, body["error"]["code"]
