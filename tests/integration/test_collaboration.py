"""Rooms: what is typed is committed, then seen by everybody who has the document open."""

import asyncio
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from api.collaboration import lobby, messages, rooms
from common.config import Settings
from common.documents import lib0
from common.documents.announcements import announce_edit
from common.documents.compaction import compact
from common.documents.editing import Edited, edit_document
from common.documents.edits import append
from common.redis import open_redis
from common.store import document_log
from common.store.database import Pool, workspace_transaction
from common.store.document_log import Actor
from tests.support.api_client import LiveApi, live_api
from tests.support.eventually import eventually
from tests.support.open_documents import committed, new_document, opens_as
from tests.support.peer import peer


async def _append(pool: Pool, workspace_id: UUID, document: str, text: str) -> Edited:
    """An edit of which nobody is told."""
    async with workspace_transaction(pool, workspace_id) as connection:
        edited = await edit_document(
            connection, workspace_id, UUID(document), lambda old: append(old, text), Actor("user", "carol")
        )
    assert edited is not None
    return edited


async def test_what_is_typed_is_seen_in_another_process(
    api: LiveApi, other_api: LiveApi, client: httpx.AsyncClient
) -> None:
    """Both ways, in order, and in GET."""
    document = await new_document(client, "cod\n")
    async with (
        peer(api.url, document, **opens_as(client)) as one,
        peer(other_api.url, document, **opens_as(client)) as two,
    ):
        await one.shows("cod\n")
        await two.shows("cod\n")
        one.type("eel 😀\n")
        await two.shows("cod\neel 😀\n")
        two.type("tuna\n", at=0)
        await one.shows("tuna\ncod\neel 😀\n")
        assert await committed(client, document) == one.text


async def test_change_over_http_is_seen_at_once(api: LiveApi, client: httpx.AsyncClient) -> None:
    """As an edit of its lines: who types in another one is not disturbed."""
    document = await new_document(client, "cod\neel\n")
    async with peer(api.url, document, **opens_as(client)) as opened:
        await opened.shows("cod\neel\n")
        place = opened.content.sticky_index(5)
        await client.patch(f"/v1/documents/{document}", json={"content": "cod\ntuna\neel\n"})
        await opened.shows("cod\ntuna\neel\n", 2)
        assert place.get_index() == 10


async def test_history_says_who_typed(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """What one types without a pause is one entry."""
    document = await new_document(client)
    bob = await api.member(workspace_id, user="bob")
    async with peer(api.url, document, **opens_as(client)) as one, peer(api.url, document, **opens_as(bob)) as two:
        await asyncio.gather(one.synced.wait(), two.synced.wait())
        for letter in "cod 😀":
            one.type(letter)
        await two.shows("cod 😀")
        del two.content[0:3]
        await one.shows(" 😀")
    edits = (await client.get(f"/v1/documents/{document}/history")).json()["data"]
    assert [(edit["actorId"], edit["inserted"], edit["removed"]) for edit in edits] == [("bob", 0, 3), ("alice", 6, 0)]


async def test_update_whose_note_was_lost_is_found(
    api: LiveApi, client: httpx.AsyncClient, pool: Pool, workspace_id: UUID
) -> None:
    """By a look at the numbers every few seconds; at once when a later one comes."""
    document = await new_document(client, "cod")
    redis = open_redis(api.settings.redis_url)
    async with peer(api.url, document, **opens_as(client)) as opened:
        await opened.shows("cod")
        await _append(pool, workspace_id, document, " eel")
        await opened.shows("cod eel", 8)
        await _append(pool, workspace_id, document, " tuna")
        later = await _append(pool, workspace_id, document, " ray")
        await announce_edit(redis, UUID(document), later)
        await opened.shows("cod eel tuna ray", 2)
        opened.type("!")
        await eventually(lambda: _iscommitted(client, document, "cod eel tuna ray!"))
    await redis.aclose()


async def _iscommitted(client: httpx.AsyncClient, document: str, text: str) -> bool:
    return bool(await committed(client, document) == text)


async def test_compaction_while_people_type_loses_nothing(
    api: LiveApi,
    other_api: LiveApi,
    client: httpx.AsyncClient,
    pool: Pool,
    workspace_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also for a room that has missed what is now part of a snapshot."""
    monkeypatch.setattr(document_log, "_LONG_TAIL", 10)
    document = await new_document(client, "cod\n")
    async with (
        peer(api.url, document, **opens_as(client)) as one,
        peer(other_api.url, document, **opens_as(client)) as two,
    ):
        await asyncio.gather(one.shows("cod\n"), two.shows("cod\n"))
        compactions = typed = 0
        while compactions < 3:
            for _ in range(50):
                typed += 1
                (one if typed % 2 else two).type(f"{typed} ", at=0)
            compactions += await compact(pool, workspace_id, UUID(document))
        await one.shows(lambda text: len(text.split()) == typed + 1)
        await two.shows(lambda text: text == one.text)
        for _ in range(10):
            await _append(pool, workspace_id, document, "end")  # which nobody is told of
        await compact(pool, workspace_id, UUID(document))
        await one.shows(lambda text: text.endswith("endend"), 8)
        await two.shows(lambda text: text == one.text, 8)
    assert await committed(client, document) == one.text


async def test_room_that_nobody_is_in_is_closed(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while; whoever comes then finds everything."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.1)
    monkeypatch.setattr(rooms, "_IDLE_S", 0.3)
    document = await new_document(client, "cod")
    async with peer(api.url, document, **opens_as(client)) as opened:
        await opened.shows("cod")
        assert len(api.app.state.rooms) == 1
    await eventually(lambda: len(api.app.state.rooms) == 0)
    async with peer(api.url, document, **opens_as(client)) as again:
        await again.shows("cod")


async def test_silent_connection_hears_something(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """y-websocket would take it for dead."""
    monkeypatch.setattr(lobby, "_KEEP_ALIVE_S", 0.5)
    document = await new_document(client, "cod")
    async with peer(api.url, document, **opens_as(client)) as opened:
        await opened.shows("cod")
        heard = opened.messages
        await eventually(lambda: opened.messages > heard + 1)


async def test_stopping_server_says_so(settings: Settings, client: httpx.AsyncClient) -> None:
    """So that clients go elsewhere at once; what they have typed until then is kept by them."""
    document = await new_document(client, "cod")
    async with live_api(msgspec.structs.replace(settings)) as leaving:
        connecting = peer(leaving.url, document, **opens_as(client))
        opened = await connecting.__aenter__()
        await opened.shows("cod")
    assert await opened.closed() == 1012
    await connecting.__aexit__(None, None, None)


async def test_nothing_is_seen_before_itis_committed(
    api: LiveApi, client: httpx.AsyncClient, settings: Settings
) -> None:
    """Neither by who is there, nor by who comes or asks meanwhile."""
    document = await new_document(client, "cod")
    owner = await asyncpg.connect(settings.migration_database_url)
    try:
        async with (
            peer(api.url, document, **opens_as(client)) as one,
            peer(api.url, document, **opens_as(client)) as two,
        ):
            await asyncio.gather(one.shows("cod"), two.shows("cod"))
            async with owner.transaction():
                await owner.execute("select from documents where id = $1 for no key update", UUID(document))
                one.type(" eel")
                await eventually(lambda: _somebody_waits(owner))
                await two.send(messages.ask_changes(b"\0"))
                async with peer(api.url, document, **opens_as(client)) as three:
                    heard = two.messages
                    await two.announce(two.doc.client_id, 1, "{}")
                    await eventually(lambda: two.messages > heard)  # so what was cast before has come as well
                    assert (two.text, three.text) == ("cod", "")
            await two.shows("cod eel")
    finally:
        await owner.close()


async def _somebody_waits(owner: asyncpg.Connection) -> bool:
    return bool(await owner.fetchval("select exists (select from pg_locks where not granted)"))


async def test_same_client_id_with_two_texts_ends_in_one(
    api: LiveApi, other_api: LiveApi, client: httpx.AsyncClient
) -> None:
    """Said at two processes at once: what was committed first counts, at both, and for whoever comes."""
    document = await new_document(client, "cod")
    async with (
        peer(api.url, document, **opens_as(client)) as one,
        peer(other_api.url, document, **opens_as(client)) as two,
    ):
        await asyncio.gather(one.shows("cod"), two.shows("cod"))
        forged = [b"\1\1\7\0\4\1" + lib0.text("content") + lib0.text(text) + b"\0" for text in ("aaaa", "bb")]
        await asyncio.gather(
            *(each.send(messages.tell_change(update)) for each, update in zip((one, two), forged, strict=True))
        )

        async def agree() -> bool:
            texts = {await committed(client, document)}
            for at in (api, other_api):
                async with peer(at.url, document, **opens_as(client)) as late:
                    await late.synced.wait()
                    texts.add(late.text)
            return len(texts) == 1 and texts != {"cod"}

        await eventually(agree)
