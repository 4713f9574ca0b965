"""What clients ask of Throughline, and of the baseline, which has no token."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from bench.spec import Target

_CONTENT = "Tell me something."
_AT_ONCE = 8


@asynccontextmanager
async def client_of(target: Target) -> AsyncIterator[httpx.AsyncClient]:
    """For what is not measured."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{target.port}", headers=_headers(target), timeout=30
    ) as client:
        yield client


async def prepare(client: httpx.AsyncClient, target: Target, count: int) -> list[str]:
    """The path to post to for each of `count` runs: with Throughline, to a conversation of its own."""
    if not target.token:
        return ["/chat"] * count
    places = asyncio.Semaphore(_AT_ONCE)

    async def create() -> str:
        async with places:
            response = await client.post("/v1/conversations", json={})
            response.raise_for_status()
            return f"/v1/conversations/{response.json()['id']}/messages"

    return await asyncio.gather(*(create() for _ in range(count)))


def post_request(target: Target, path: str, model: str) -> bytes:
    """A POST that is answered with its run's stream."""
    choice = {"provider": "anthropic"} if target.token else {}
    body = json.dumps({"content": _CONTENT, "model": model, **choice}).encode()
    more = {"Accept": "text/event-stream", "Content-Type": "application/json", "Content-Length": str(len(body))}
    return _head("POST", path, target, more) + body


def get_request(target: Target, path: str, more: Mapping[str, str] | None = None) -> bytes:
    """A GET of a stream."""
    return _head("GET", path, target, {"Accept": "text/event-stream", **(more or {})})


def _head(method: str, path: str, target: Target, more: Mapping[str, str]) -> bytes:
    headers = {"Host": "127.0.0.1", **more, **_headers(target)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def _headers(target: Target) -> dict[str, str]:
    if not target.token:
        return {}
    return {"Authorization": f"Bearer {target.token}", "X-Workspace-Id": target.workspace_id}
