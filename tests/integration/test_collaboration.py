"""Rooms: what is typed is committed, then seen by everybody who has the document open."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
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
from tests.support.api_client import LiveApi, live_api, make_token
from tests.support.eventually import eventually
from tests.support.peer import peer


@pytest.fixture
async def other_api(settings: Settings) -> AsyncIterator[LiveApi]:
    """A second API on the same stores."""
    async with live_api(settings) as api:
        yield api


async def _document(client: httpx.AsyncClient, content: str = "") -> str:
    answer = await client.post("/v1/documents", json={"name": "Fish", "content": content})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def _committed(client: httpx.AsyncClient, document: str) -> Any:
    return (await client.get(f"/v1/documents/{document}")).json()["content"]


def _as(client: httpx.AsyncClient) -> dict[str, Any]:
    """How a program opens a document: with its token in a header."""
    return {"additional_headers": {"authorization": client.headers["authorization"]}}


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
    document = await _document(client, "cod\n")
    async with peer(api.url, document, **_as(client)) as one, peer(other_api.url, document, **_as(client)) as two:
        await one.shows("cod\n")
        await two.shows("cod\n")
        one.type("eel 😀\n")
        await two.shows("cod\neel 😀\n")
        two.type("tuna\n", at=0)
        await one.shows("tuna\ncod\neel 😀\n")
        assert await _committed(client, document) == one.text


async def test_ticket_opens_just_its_document(api: LiveApi, client: httpx.AsyncClient) -> None:
    """Another one's does not, nor does it open a stream."""
    document, other = await _document(client, "cod"), await _document(client)
    ticket = (await client.post("/v1/tickets", json={"documentId": document})).json()["ticket"]
    async with peer(api.url, document, query=f"?ticket={ticket}") as opened:
        await opened.shows("cod")
    async with peer(api.url, other, query=f"?ticket={ticket}") as refused:
        assert await refused.closed() == 4401


async def test_token_may_be_the_first_message(api: LiveApi, client: httpx.AsyncClient) -> None:
    """For those who can send no header; anything else in its place is refused."""
    document = await _document(client, "cod")
    token = client.headers["authorization"].removeprefix("Bearer ")
    for first, code in ((f'{{"token":"{token}"}}', None), ('{"token":"x"}', 4401), ("{", 4401), (b"\0\0\1\0", 4401)):
        async with peer(api.url, document, first=first) as someone:
            if code is None:
                await someone.shows("cod")
            else:
                assert await someone.closed() == code


@pytest.mark.parametrize("name", ["01a1ff5a-6f43-7861-a98c-ca9cdf16d80f", "fish", "%00", "..%2f"])
async def test_document_that_is_not_there_is_closed_as_such(api: LiveApi, client: httpx.AsyncClient, name: str) -> None:
    """After the accept: a refusal before it would be tried again for ever."""
    async with peer(api.url, name, **_as(client)) as someone:
        assert await someone.closed() == 4404


async def test_document_of_another_workspace_is_not_there(
    api: LiveApi, client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """Also while its room is open."""
    document = await _document(client, "cod")
    async with peer(api.url, document, **_as(client)) as one, peer(api.url, document, **_as(stranger)) as two:
        assert await two.closed() == 4404
        await one.shows("cod")
    assert (await stranger.post("/v1/tickets", json={"documentId": document})).status_code == 404


async def test_page_of_a_stranger_is_refused(api: LiveApi, client: httpx.AsyncClient) -> None:
    """Our own origin, and those that CORS allows, are not."""
    document = await _document(client, "cod")
    async with peer(api.url, document, origin="https://evil.example", **_as(client)) as someone:
        assert await someone.closed() == 4403
    async with peer(api.url, document, origin="null", **_as(client)) as someone:
        assert await someone.closed() == 4403
    async with peer(api.url, document, origin=api.url, **_as(client)) as someone:
        await someone.shows("cod")


async def test_viewer_reads_along(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """What they write is dropped, and they are told so, once."""
    document = await _document(client, "cod")
    viewer = await api.member(workspace_id, "viewer", "vera")
    async with peer(api.url, document, **_as(viewer)) as reader, peer(api.url, document, **_as(client)) as writer:
        await reader.shows("cod")
        reader.type(" and more")
        reader.type(" still")
        await eventually(lambda: reader.refusals)
        writer.type("eel ", at=0)
        await reader.shows("eel cod and more still")
        assert (writer.text, reader.refusals) == ("eel cod", 1)
        assert await _committed(client, document) == "eel cod"


async def test_socket_ends_with_its_token(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """On the second, however busy it is; another token goes on."""
    document = await _document(client, "cod")
    token = make_token(api.settings.jwt_secret, (workspace_id, "member"), exp=int(time.time()) + 2)
    async with peer(api.url, document, first=f'{{"token":"{token}"}}') as someone:
        await someone.shows("cod")
        assert await someone.closed(5) == 4401


async def test_deleted_document_is_closed_everywhere(
    api: LiveApi, other_api: LiveApi, client: httpx.AsyncClient
) -> None:
    """At once; restored, it opens again."""
    document = await _document(client, "cod")
    async with peer(api.url, document, **_as(client)) as one, peer(other_api.url, document, **_as(client)) as two:
        await one.shows("cod")
        await two.shows("cod")
        await client.delete(f"/v1/documents/{document}")
        assert [await one.closed(2), await two.closed(2)] == [4404, 4404]
    await client.post(f"/v1/documents/{document}/restore")
    async with peer(api.url, document, **_as(client)) as again:
        await again.shows("cod")


async def test_change_over_http_is_seen_at_once(api: LiveApi, client: httpx.AsyncClient) -> None:
    """As an edit of its lines: who types in another one is not disturbed."""
    document = await _document(client, "cod\neel\n")
    async with peer(api.url, document, **_as(client)) as opened:
        await opened.shows("cod\neel\n")
        place = opened.content.sticky_index(5)
        await client.patch(f"/v1/documents/{document}", json={"content": "cod\ntuna\neel\n"})
        await opened.shows("cod\ntuna\neel\n", 2)
        assert place.get_index() == 10


async def test_history_says_who_typed(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """What one types without a pause is one entry."""
    document = await _document(client)
    bob = await api.member(workspace_id, user="bob")
    async with peer(api.url, document, **_as(client)) as one, peer(api.url, document, **_as(bob)) as two:
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
    document = await _document(client, "cod")
    redis = open_redis(api.settings.redis_url)
    async with peer(api.url, document, **_as(client)) as opened:
        await opened.shows("cod")
        await _append(pool, workspace_id, document, " eel")
        await opened.shows("cod eel", 8)
        await _append(pool, workspace_id, document, " tuna")
        later = await _append(pool, workspace_id, document, " ray")
        await announce_edit(redis, UUID(document), later)
        await opened.shows("cod eel tuna ray", 2)
        opened.type("!")
        await eventually(lambda: _is_committed(client, document, "cod eel tuna ray!"))
    await redis.aclose()


async def _is_committed(client: httpx.AsyncClient, document: str, text: str) -> bool:
    return bool(await _committed(client, document) == text)


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
    document = await _document(client, "cod\n")
    async with peer(api.url, document, **_as(client)) as one, peer(other_api.url, document, **_as(client)) as two:
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
    assert await _committed(client, document) == one.text


async def test_what_is_typed_is_found_by_search(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seconds later."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.2)
    document = await _document(client)
    async with peer(api.url, document, **_as(client)) as opened:
        await opened.synced.wait()
        opened.type("turbot")

        async def found() -> bool:
            return bool((await client.get("/v1/documents", params={"q": "turbot"})).json()["data"])

        await eventually(found)


async def test_room_that_nobody_is_in_is_closed(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while; whoever comes then finds everything."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.1)
    monkeypatch.setattr(rooms, "_IDLE_S", 0.3)
    document = await _document(client, "cod")
    async with peer(api.url, document, **_as(client)) as opened:
        await opened.shows("cod")
        assert len(api.app.state.rooms) == 1
    await eventually(lambda: len(api.app.state.rooms) == 0)
    async with peer(api.url, document, **_as(client)) as again:
        await again.shows("cod")


async def test_silent_connection_hears_something(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """y-websocket would take it for dead."""
    monkeypatch.setattr(lobby, "_KEEP_ALIVE_S", 0.5)
    document = await _document(client, "cod")
    async with peer(api.url, document, **_as(client)) as opened:
        await opened.shows("cod")
        heard = opened.messages
        await eventually(lambda: opened.messages > heard + 1)


async def test_stopping_server_says_so(settings: Settings, client: httpx.AsyncClient) -> None:
    """So that clients go elsewhere at once; what they have typed until then is kept by them."""
    document = await _document(client, "cod")
    async with live_api(msgspec.structs.replace(settings)) as leaving:
        connecting = peer(leaving.url, document, **_as(client))
        opened = await connecting.__aenter__()
        await opened.shows("cod")
    assert await opened.closed() == 1012
    await connecting.__aexit__(None, None, None)


async def test_text_that_postgres_would_refuse_is_found_all_the_same(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U+0000 may be typed; the text for searches has U+FFFD in its place, and agents edit beside it."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.2)
    document = await _document(client)
    async with peer(api.url, document, **_as(client)) as opened:
        await opened.synced.wait()
        opened.type("halibut\x00\n")

        async def found() -> bool:
            return bool((await client.get("/v1/documents", params={"q": "halibut"})).json()["data"])

        await eventually(found)
        answer = await client.patch(f"/v1/documents/{document}", json={"content": "halibut\n"})
        assert answer.status_code == 200
        await opened.shows("halibut\n")


async def test_nothing_is_seen_before_it_is_committed(
    api: LiveApi, client: httpx.AsyncClient, settings: Settings
) -> None:
    """Neither by who is there, nor by who comes or asks meanwhile."""
    document = await _document(client, "cod")
    owner = await asyncpg.connect(settings.migration_database_url)
    try:
        async with peer(api.url, document, **_as(client)) as one, peer(api.url, document, **_as(client)) as two:
            await asyncio.gather(one.shows("cod"), two.shows("cod"))
            async with owner.transaction():
                await owner.execute("select from documents where id = $1 for no key update", UUID(document))
                one.type(" eel")
                await eventually(lambda: _somebody_waits(owner))
                await two.send(messages.ask_changes(b"\0"))
                async with peer(api.url, document, **_as(client)) as three:
                    heard = two.messages
                    await two.announce(two.doc.client_id, 1, "{}")
                    await eventually(lambda: two.messages > heard)  # so what was cast before has come as well
                    assert (two.text, three.text) == ("cod", "")
            await two.shows("cod eel")
    finally:
        await owner.close()


async def _somebody_waits(owner: asyncpg.Connection) -> bool:
    return bool(await owner.fetchval("select exists (select from pg_locks where not granted)"))


async def test_text_with_too_many_words_is_kept_all_the_same(
    api: LiveApi, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of words holds a megabyte: over HTTP and in a room, and those beside it are found."""
    monkeypatch.setattr(rooms, "_KEEP_UP_S", 0.2)
    text = "".join(chr(0x4E00 + number % 20_000) + "-" * (number % 3 == 0) for number in range(150_000))
    document, other = await _document(client, text), await _document(client)
    async with peer(api.url, document, **_as(client)) as opened, peer(api.url, other, **_as(client)) as beside:
        await asyncio.gather(opened.synced.wait(), beside.synced.wait())
        opened.type("turbot ", at=0)
        beside.type("brill")

        async def found() -> bool:
            answers = [await client.get("/v1/documents", params={"q": word}) for word in ("turbot", "brill")]
            return all(answer.json()["data"] for answer in answers)

        await eventually(found)
    assert (await client.patch(f"/v1/documents/{document}", json={"content": text})).status_code == 200


async def test_deleted_documents_are_listed_when_asked_for(client: httpx.AsyncClient) -> None:
    """So that what an agent or somebody else has deleted can be found, and restored."""
    kept, deleted = await _document(client), await _document(client)
    await client.delete(f"/v1/documents/{deleted}")
    [gone] = (await client.get("/v1/documents", params={"deleted": True})).json()["data"]
    [there] = (await client.get("/v1/documents")).json()["data"]
    assert (gone["id"], there["id"]) == (deleted, kept)
    assert gone["deletedAt"] is not None


async def test_same_client_id_with_two_texts_ends_in_one(
    api: LiveApi, other_api: LiveApi, client: httpx.AsyncClient
) -> None:
    """Said at two processes at once: what was committed first counts, at both, and for whoever comes."""
    document = await _document(client, "cod")
    async with peer(api.url, document, **_as(client)) as one, peer(other_api.url, document, **_as(client)) as two:
        await asyncio.gather(one.shows("cod"), two.shows("cod"))
        forged = [b"\1\1\7\0\4\1" + lib0.text("content") + lib0.text(text) + b"\0" for text in ("aaaa", "bb")]
        await asyncio.gather(
            *(each.send(messages.tell_change(update)) for each, update in zip((one, two), forged, strict=True))
        )

        async def agree() -> bool:
            texts = {await _committed(client, document)}
            for at in (api, other_api):
                async with peer(at.url, document, **_as(client)) as late:
                    await late.synced.wait()
                    texts.add(late.text)
            return len(texts) == 1 and texts != {"cod"}

        await eventually(agree)


async def test_question_with_a_huge_state_is_refused(api: LiveApi, client: httpx.AsyncClient) -> None:
    """And so is whoever asks for everything again and again."""
    document = await _document(client, "cod")
    for questions in ([bytes(70_000)], [b"\0"] * 20):
        async with peer(api.url, document, **_as(client)) as someone:
            await someone.shows("cod")
            for question in questions:
                await someone.send(messages.ask_changes(question))
            assert await someone.closed() == 4400


async def test_origin_that_cannot_be_read_is_refused(api: LiveApi, client: httpx.AsyncClient) -> None:
    """As any other that is not ours."""
    document = await _document(client)
    headers = {"authorization": client.headers["authorization"], "origin": "http://["}
    async with peer(api.url, document, additional_headers=headers) as someone:
        assert await someone.closed() == 4403
