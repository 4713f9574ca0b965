"""Documents of an API in this process: made, opened by a peer, and read, as the client of a test."""

from typing import Any

import httpx


async def new_document(client: httpx.AsyncClient, content: str = "") -> str:
    """Its id."""
    answer = await client.post("/v1/documents", json={"name": "Fish", "content": content})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def committed(client: httpx.AsyncClient, document: str) -> Any:
    """What the document says to whoever asks over HTTP."""
    return (await client.get(f"/v1/documents/{document}")).json()["content"]


def opens_as(client: httpx.AsyncClient) -> dict[str, Any]:
    """How a program opens a document: with its token in a header."""
    return {"additional_headers": {"authorization": client.headers["authorization"]}}
