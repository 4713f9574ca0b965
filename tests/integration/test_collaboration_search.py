"""What is typed is found by search, whatever the text; and what was deleted, when it is asked for."""

import asyncio
from functools import partial

import httpx
import pytest

from api.collaboration import rooms
from tests.support.api_client import LiveApi
from tests.support.eventually import eventually
from tests.support.open_documents import new_document, opens_as
from tests.support.peer import peer


async def test_what_is_typed_is_found_by_search(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seconds later."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.2)
    document = await new_document(client)
    async with peer(api.url, document, **opens_as(client)) as opened:
        await opened.synced.wait()
        opened.type("turbot")
        await eventually(partial(_finds, client, "turbot"))


async def test_text_that_postgres_would_refuse_is_found_all_the_same(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U+0000 may be typed; the text for searches has U+FFFD in its place, and agents edit beside it."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.2)
    document = await new_document(client)
    async with peer(api.url, document, **opens_as(client)) as opened:
        await opened.synced.wait()
        opened.type("halibut\x00\n")
        await eventually(partial(_finds, client, "halibut"))
        answer = await client.patch(f"/v1/documents/{document}", json={"content": "halibut\n"})
        assert answer.status_code == 200
        await opened.shows("halibut\n")


async def test_text_with_too_many_words_is_kept_all_the_same(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of words holds a megabyte: over HTTP and in a room, and those beside it are found."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.2)
    text = "".join(chr(0x4E00 + number % 20_000) + "-" * (number % 3 == 0) for number in range(150_000))
    document, other = await new_document(client, text), await new_document(client)
    async with (
        peer(api.url, document, **opens_as(client)) as opened,
        peer(api.url, other, **opens_as(client)) as beside,
    ):
        await asyncio.gather(opened.synced.wait(), beside.synced.wait())
        opened.type("turbot ", at=0)
        beside.type("brill")
        for word in ("turbot", "brill"):
            await eventually(partial(_finds, client, word))
    assert (await client.patch(f"/v1/documents/{document}", json={"content": text})).status_code == 200


async def test_deleted_documents_are_listed_when_asked_for(client: httpx.AsyncClient) -> None:
    """So that what an agent or somebody else has deleted can be found, and restored."""
    kept, deleted = await new_document(client), await new_document(client)
    await client.delete(f"/v1/documents/{deleted}")
    [gone] = (await client.get("/v1/documents", params={"deleted": True})).json()["data"]
    [there] = (await client.get("/v1/documents")).json()["data"]
    assert (gone["id"], there["id"]) == (deleted, kept)
    assert gone["deletedAt"] is not None


async def _finds(client: httpx.AsyncClient, word: str) -> bool:
    return bool((await client.get("/v1/documents", params={"q": word})).json()["data"])
