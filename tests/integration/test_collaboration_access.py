"""Who may open a document, who only reads along, and when a connection ends."""

import time
from uuid import UUID

import httpx
import pytest

from api.collaboration import messages
from tests.support.api_client import LiveApi, make_token
from tests.support.eventually import eventually
from tests.support.open_documents import committed, new_document, opens_as
from tests.support.peer import peer


async def test_ticket_opens_just_its_document(api: LiveApi, client: httpx.AsyncClient) -> None:
    """Another one's does not, nor does it open a stream."""
    document, other = await new_document(client, "cod"), await new_document(client)
    ticket = (await client.post("/v1/tickets", json={"documentId": document})).json()["ticket"]
    async with peer(api.url, document, query=f"?ticket={ticket}") as opened:
        await opened.shows("cod")
    async with peer(api.url, other, query=f"?ticket={ticket}") as refused:
        assert await refused.closed() == 4401


async def test_token_may_be_the_first_message(api: LiveApi, client: httpx.AsyncClient) -> None:
    """For those who can send no header; anything else in its place is refused."""
    document = await new_document(client, "cod")
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
    async with peer(api.url, name, **opens_as(client)) as someone:
        assert await someone.closed() == 4404


async def test_document_of_another_workspace_is_not_there(
    api: LiveApi, client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """Also while its room is open."""
    document = await new_document(client, "cod")
    async with peer(api.url, document, **opens_as(client)) as one, peer(api.url, document, **opens_as(stranger)) as two:
        assert await two.closed() == 4404
        await one.shows("cod")
    assert (await stranger.post("/v1/tickets", json={"documentId": document})).status_code == 404


async def test_page_of_a_stranger_is_refused(api: LiveApi, client: httpx.AsyncClient) -> None:
    """Our own origin, and those that CORS allows, are not."""
    document = await new_document(client, "cod")
    async with peer(api.url, document, origin="https://evil.example", **opens_as(client)) as someone:
        assert await someone.closed() == 4403
    async with peer(api.url, document, origin="null", **opens_as(client)) as someone:
        assert await someone.closed() == 4403
    async with peer(api.url, document, origin=api.url, **opens_as(client)) as someone:
        await someone.shows("cod")


async def test_origin_that_cannot_be_read_is_refused(api: LiveApi, client: httpx.AsyncClient) -> None:
    """As any other that is not ours."""
    document = await new_document(client)
    headers = {"authorization": client.headers["authorization"], "origin": "http://["}
    async with peer(api.url, document, additional_headers=headers) as someone:
        assert await someone.closed() == 4403


async def test_viewer_reads_along(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """What they write is dropped, and they are told so, once."""
    document = await new_document(client, "cod")
    viewer = await api.member(workspace_id, "viewer", "vera")
    async with (
        peer(api.url, document, **opens_as(viewer)) as reader,
        peer(api.url, document, **opens_as(client)) as writer,
    ):
        await reader.shows("cod")
        reader.type(" and more")
        reader.type(" still")
        await eventually(lambda: reader.refusals)
        writer.type("eel ", at=0)
        await reader.shows("eel cod and more still")
        assert (writer.text, reader.refusals) == ("eel cod", 1)
        assert await committed(client, document) == "eel cod"


async def test_socket_ends_with_its_token(api: LiveApi, client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """On the second, however busy it is; another token goes on."""
    document = await new_document(client, "cod")
    token = make_token(api.settings.jwt_secret, (workspace_id, "member"), exp=int(time.time()) + 2)
    async with peer(api.url, document, first=f'{{"token":"{token}"}}') as someone:
        await someone.shows("cod")
        assert await someone.closed(5) == 4401


async def test_deleted_document_is_closed_everywhere(
    api: LiveApi, other_api: LiveApi, client: httpx.AsyncClient
) -> None:
    """At once; restored, it opens again."""
    document = await new_document(client, "cod")
    async with (
        peer(api.url, document, **opens_as(client)) as one,
        peer(other_api.url, document, **opens_as(client)) as two,
    ):
        await one.shows("cod")
        await two.shows("cod")
        await client.delete(f"/v1/documents/{document}")
        assert [await one.closed(2), await two.closed(2)] == [4404, 4404]
    await client.post(f"/v1/documents/{document}/restore")
    async with peer(api.url, document, **opens_as(client)) as again:
        await again.shows("cod")


async def test_question_with_a_huge_state_is_refused(api: LiveApi, client: httpx.AsyncClient) -> None:
    """And so is whoever asks for everything again and again."""
    document = await new_document(client, "cod")
    for questions in ([bytes(70_000)], [b"\0"] * 20):
        async with peer(api.url, document, **opens_as(client)) as someone:
            await someone.shows("cod")
            for question in questions:
                await someone.send(messages.ask_changes(question))
            assert await someone.closed() == 4400
