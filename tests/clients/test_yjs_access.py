"""yjs and y-websocket, unmodified: who may open a document, who may write in it, and for how long."""

import asyncio
import time
from typing import Any

import pytest

from common.ids import new_id
from tests.clients.conftest import Pair, Studio
from tests.support.documents import make_document, stored_text, text_is_stored, ticket_for, token_of
from tests.support.editors import Editor, agree
from tests.support.eventually import eventually
from tests.support.raw_sync import first_message
from tests.support.system import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _person(studio: Studio, alice: Pair, role: str = "member", user: str = "bob", **claims: Any) -> Client:
    """Somebody else in Alice's workspace."""
    person = await studio.system.client(studio.there, alice.here.workspace_id)
    authorization = f"Bearer {token_of(alice.here.workspace_id, role, user, **claims)}"
    person.headers["authorization"] = person.http.headers["authorization"] = authorization
    return person


@pytest.mark.parametrize("way", ["header", "first message", "first message that names the workspace"])
async def test_ways_to_say_who_one_is(studio: Studio, alice: Pair, way: str) -> None:
    """A ticket, as in all other tests; a header, where one can be sent; a token as the first message."""
    document = await make_document(alice.here, "hello")
    mine, other = alice.here.workspace_id, new_id()
    if way == "header":
        headers = {"Authorization": alice.here.headers["authorization"]}
        editor = await studio.editors.join(alice.here, document, headers=headers)
    elif way == "first message":
        editor = await studio.editors.join(alice.here, document, first=first_message(token_of(mine)))
    else:
        claims: dict[str, Any] = {"workspaces": [{"workspace_id": str(id_), "role": "member"} for id_ in (other, mine)]}
        first = first_message(token_of(mine, **claims), workspaceId=str(mine))
        editor = await studio.editors.join(alice.here, document, first=first)
    await editor.insert(5, " there")
    await text_is_stored(alice.here, document, "hello there")


async def test_viewer_reads_along_and_is_told_that_it_cannot_write(studio: Studio, alice: Pair) -> None:
    """What it writes reaches nobody, neither at its own API nor at the other, nor the database; it stays connected."""
    document = await make_document(alice.here, "read me")
    victor = await _person(studio, alice, "viewer", "victor")
    viewer = await studio.editors.join(victor, document, name="Victor")
    here, there = [await studio.editors.join(person, document) for person in alice]
    await viewer.insert(0, "mine: ")
    await eventually(lambda: _denied(viewer))
    await here.insert(7, ", please")
    await there.says("read me, please")
    await here.says("read me, please")
    await viewer.says("mine: read me, please")
    assert (await viewer.report()).closes == []
    await here.has_company("Victor")
    assert await stored_text(alice.here, document) == "read me, please"
    fresh = await studio.editors.join(victor, document)
    await fresh.says("read me, please")


async def test_viewer_becomes_what_its_new_token_says(studio: Studio, alice: Pair) -> None:
    """Roles hold for a connection: after the next one a demoted member writes no more, a promoted viewer does."""
    document = await make_document(alice.here, "text")
    member, viewer = await _person(studio, alice), await _person(studio, alice, "viewer")
    editor = await studio.editors.join(member, document)
    witness = await studio.editors.join(alice.here, document)
    await editor.insert(0, "a member's ")
    await witness.says("a member's text")

    await editor.disconnect()
    await editor.connect(await ticket_for(viewer, document))
    await editor.is_synced()
    await editor.insert(0, "not ")
    await eventually(lambda: _denied(editor))
    await witness.insert(0, "! ")
    await text_is_stored(alice.here, document, "! a member's text")
    await eventually(lambda: _holds(editor, "!", "not"))
    assert await witness.text() == "! a member's text"

    await editor.disconnect()
    await editor.connect(await ticket_for(member, document))
    assert await agree(editor, witness) == await stored_text(alice.here, document)
    assert "not " in await witness.text()


async def test_token_that_expires_closes_and_a_new_one_goes_on(studio: Studio, alice: Pair) -> None:
    """Closed with 4401, which y-websocket does not retry; with a new ticket what was typed meanwhile is merged."""
    document = await make_document(alice.here, "text")
    short = await _person(studio, alice, exp=time.time() + 3)
    editor = await studio.editors.join(short, document, name="Ann")
    witness = await studio.editors.join(alice.here, document)
    await editor.insert(0, "in time ")
    await witness.says("in time text")
    await witness.has_company("Ann")
    await editor.is_closed(4401)
    await witness.has_company()
    await editor.insert(0, "later ")
    await witness.insert(0, "meanwhile ")
    refused = await short.http.post("/v1/tickets", json={"documentId": document})
    assert refused.status_code == 401
    await editor.connect(await ticket_for(alice.there, document))
    assert sorted((await agree(editor, witness)).split()) == ["in", "later", "meanwhile", "text", "time"]


async def test_deleted_document_closes_and_opens_again_when_restored(studio: Studio, alice: Pair) -> None:
    """All who have it open are closed with 4404, at every API; nobody new gets in; restored, all is as before."""
    document = await make_document(alice.here, "text")
    editors = [await studio.editors.join(person, document) for person in alice]
    tickets = [await ticket_for(person, document) for person in alice]
    assert (await alice.here.http.delete(f"/v1/documents/{document}")).status_code == 204
    for editor in editors:
        await editor.is_closed(4404)
    late = await studio.editors.open(alice.here, document, ticket=tickets[0])
    await late.is_closed(4404)
    await editors[0].insert(0, "offline ")
    assert (await alice.there.http.post(f"/v1/documents/{document}/restore")).status_code == 200
    for editor, ticket in zip(editors, tickets, strict=True):
        await editor.connect(ticket)
    assert await agree(*editors) == "offline text"
    assert await stored_text(alice.there, document) == "offline text"


async def test_workspaces_never_meet(studio: Studio, alice: Pair) -> None:
    """Another workspace's document is not there: for a token, for a ticket's minting, for a ticket of its own."""
    document = await make_document(alice.here, "secret")
    mallory = await studio.system.client(studio.here)
    own = await make_document(mallory, "mallory's")
    minted = await mallory.http.post("/v1/tickets", json={"documentId": document})
    assert minted.status_code == 404
    by_header = await studio.editors.open(
        mallory, document, headers={"Authorization": mallory.headers["authorization"]}
    )
    by_message = await studio.editors.open(
        mallory, document, first=first_message(mallory.headers["authorization"].removeprefix("Bearer "))
    )
    by_ticket = await studio.editors.open(mallory, document, ticket=await ticket_for(mallory, own))
    named = {"Authorization": mallory.headers["authorization"], "X-Workspace-Id": str(alice.here.workspace_id)}
    by_name = await studio.editors.open(mallory, document, headers=named)
    await by_header.is_closed(4404)
    await by_message.is_closed(4404)
    await by_ticket.is_closed(4401)
    await by_name.is_closed(4403)
    assert {(await editor.report()).text for editor in (by_header, by_message, by_ticket, by_name)} == {""}


async def test_documents_of_one_workspace_do_not_mix(studio: Studio, alice: Pair) -> None:
    """Two rooms of one process: neither text nor presence of one is seen in the other."""
    one, other = await make_document(alice.here, "one"), await make_document(alice.here, "other")
    pairs = [
        [await studio.editors.join(person, document, name=f"{document} {place}") for place, person in enumerate(alice)]
        for document in (one, other)
    ]
    await asyncio.gather(*(editor.insert(0, f"{place}") for pair in pairs for place, editor in enumerate(pair)))
    texts = [await agree(*pair) for pair in pairs]
    assert sorted(texts[0]) == sorted("01one")
    assert sorted(texts[1]) == sorted("01other")
    for document, pair in zip((one, other), pairs, strict=True):
        await pair[0].has_company(f"{document} 1")
        await pair[1].has_company(f"{document} 0")


async def _holds(editor: Editor, *parts: str) -> bool:
    text = await editor.text()
    return all(part in text for part in parts)


async def _denied(editor: Editor) -> bool:
    return bool((await editor.report()).denials)
