"""Rooms: what is typed is committed, then seen by everybody who has the document open."""

from collections.abc import AsyncIterator

import httpx
import pytest

from common.config import Settings
from tests.support.api_client import LiveApi, live_api
from tests.support.peer import peer


@pytest.fixture
async def other_api(settings: Settings) -> AsyncIterator[LiveApi]:
    """A second API on the same stores."""
    async with live_api(settings) as api:
        yield api


async def make_document(client: httpx.AsyncClient, content: str = "") -> str:
    """The id of a new document."""
    answer = await client.post("/v1/documents", json={"name": "Fish", "content": content})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def text_of(client: httpx.AsyncClient, document: str) -> str:
    """What the document says, as it is committed."""
    return str((await client.get(f"/v1/documents/{document}")).json()["content"])


def by_header(client: httpx.AsyncClient) -> dict[str, dict[str, str]]:
    """How a program opens a document: with its token in a header."""
    return {"additional_headers": {"authorization": client.headers["authorization"]}}


async def test_what_is_typed_is_seen_in_another_process(
    api: LiveApi, other_api: LiveApi, client: httpx.AsyncClient
) -> None:
    """Both ways, in order, and in GET."""
    document = await make_document(client, "cod\n")
    async with (
        peer(api.url, document, **by_header(client)) as one,
        peer(other_api.url, document, **by_header(client)) as two,
    ):
        await one.shows("cod\n")
        await two.shows("cod\n")
        one.type("eel 😀\n")
        await two.shows("cod\neel 😀\n")
        two.type("tuna\n", at=0)
        await one.shows("tuna\ncod\neel 😀\n")
        assert await text_of(client, document) == one.text


async def test_ticket_opens_just_its_document(api: LiveApi, client: httpx.AsyncClient) -> None:
    """Another one's, and none at all, do not."""
    document, other = await make_document(client, "cod"), await make_document(client)
    ticket = (await client.post("/v1/tickets", json={"documentId": document})).json()["ticket"]
    async with peer(api.url, document, query=f"?ticket={ticket}") as opened:
        await opened.shows("cod")
    async with peer(api.url, other, query=f"?ticket={ticket}") as refused:
        assert await refused.closed() == 4401


async def test_change_over_http_is_seen_at_once(api: LiveApi, client: httpx.AsyncClient) -> None:
    """As an edit of its lines."""
    document = await make_document(client, "cod\neel\n")
    async with peer(api.url, document, **by_header(client)) as opened:
        await opened.shows("cod\neel\n")
        await client.patch(f"/v1/documents/{document}", json={"content": "cod\ntuna\neel\n"})
        await opened.shows("cod\ntuna\neel\n", 1)
