"""Who may not come in is told so after the accept, by a close code: y-websocket tries for ever when refused before."""

import time
from typing import Any

import pytest

from common.ids import new_id
from tests.clients.conftest import Pair, Studio
from tests.support.documents import make_document, ticket_for, token_of
from tests.support.raw_sync import first_message, raw_sync, step1
from tests.support.system import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")
_STRANGER = "https://evil.example"


async def _closed(someone: Client, document: str, *frames: bytes | str, **given: Any) -> int:
    """The code with which somebody is closed who says this first."""
    async with raw_sync(someone.url, document, **given) as raw:
        await raw.send(*frames)
        return (await raw.close_code())[0]


def _token(someone: Client, **claims: Any) -> str:
    return token_of(someone.workspace_id, **claims)


@pytest.mark.parametrize(
    "ticket", ["", "x", "tkt_", f"tkt_{new_id().hex}_{'x' * 43}", "tkt_%00", "x" * 5000], ids=lambda it: it[:12] or "-"
)
async def test_wrong_ticket(alice: Pair, ticket: str) -> None:
    """Closed with 4401."""
    document = await make_document(alice.here)
    assert await _closed(alice.here, document, query=f"?ticket={ticket}") == 4401


async def test_ticket_of_something_else(alice: Pair) -> None:
    """Of another document, of a run, of a conversation: 4401."""
    document, other = [await make_document(alice.here) for _ in range(2)]
    run = await alice.here.start("go")
    conversation = {"conversationId": run["conversationId"]}
    minted = [
        await alice.here.http.post("/v1/tickets", json=subject)
        for subject in ({"documentId": other}, {"runId": run["id"]}, conversation)
    ]
    tickets = [answer.json()["ticket"] for answer in minted]
    for ticket in tickets:
        assert await _closed(alice.here, document, query=f"?ticket={ticket}") == 4401
    with_document = await alice.here.http.get(
        f"/v1/runs/{run['id']}/stream", params={"ticket": tickets[0]}, headers={"authorization": ""}
    )
    assert with_document.status_code == 401


async def test_ticket_that_was_not_used_in_time(studio: Studio, alice: Pair) -> None:
    """Whoever comes for the first time after its end is closed with 4401."""
    document = await make_document(alice.here)
    ticket = await ticket_for(alice.here, document)
    await studio.system.rows("update tickets set expires_at = now() - interval '1 minute'")
    assert await _closed(alice.here, document, query=f"?ticket={ticket}") == 4401


@pytest.mark.parametrize(
    "first",
    [
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"token": 5}',
        '{"token": ""}',
        '{"token": "x.y.z"}',
        "[" * 100_000,
        '{"token": "' + "x" * 100_000 + '"}',
    ],
    ids=lambda first: first[:16],
)
async def test_first_message_that_is_no_token(alice: Pair, first: str) -> None:
    """Closed with 4401, or 4400 where it is not even a message."""
    document = await make_document(alice.here)
    assert await _closed(alice.here, document, first) in (4400, 4401)


async def test_first_message_that_is_no_text(alice: Pair) -> None:
    """Who asks before saying who it is gets nothing."""
    document = await make_document(alice.here, "secret")
    async with raw_sync(alice.here.url, document) as raw:
        await raw.send(step1())
        assert (await raw.close_code())[0] in (4400, 4401)


async def test_token_that_does_not_hold(alice: Pair) -> None:
    """Expired, of nobody here, for a workspace that is not named: 4401 and 4403, by header and by message alike."""
    document = await make_document(alice.here)
    workspaces = [{"workspace_id": str(id_), "role": "member"} for id_ in (new_id(), alice.here.workspace_id)]
    cases = [
        (_token(alice.here, exp=time.time() - 5), 4401),
        (_token(alice.here, aud="somebody else"), 4401),
        (_token(alice.here, workspaces=[]), 4403),
    ]
    for token, code in cases:
        assert await _closed(alice.here, document, first_message(token)) == code
        assert await _closed(alice.here, document, headers={"Authorization": f"Bearer {token}"}) == code
    ambiguous = _token(alice.here, workspaces=workspaces)
    assert await _closed(alice.here, document, first_message(ambiguous)) in (4400, 4403)
    foreign = first_message(_token(alice.here), workspaceId=str(new_id()))
    assert await _closed(alice.here, document, foreign) == 4403
    nonsense = first_message(_token(alice.here), workspaceId="x")
    assert await _closed(alice.here, document, nonsense) in (4400, 4401)


async def test_token_in_the_url(alice: Pair) -> None:
    """Is not looked at: it would stand in every log."""
    document = await make_document(alice.here)
    for name in ("token", "access_token"):
        async with raw_sync(alice.here.url, document, query=f"?{name}={_token(alice.here)}") as raw:
            await raw.send(step1())
            assert (await raw.close_code())[0] in (4400, 4401)


@pytest.mark.slow
async def test_nothing_said_in_time(alice: Pair) -> None:
    """Who does not say who it is within 10 s is closed with 4408."""
    document = await make_document(alice.here)
    began = time.monotonic()
    assert await _closed(alice.here, document, ping_interval=None) == 4408
    assert time.monotonic() - began > 5


@pytest.mark.parametrize("way", ["ticket", "header", "first message"])
async def test_page_of_a_stranger(alice: Pair, way: str) -> None:
    """An Origin that is not on the list: 4403, whatever else it has."""
    document = await make_document(alice.here)
    given: dict[str, Any] = {"origin": _STRANGER}
    frames = []
    if way == "ticket":
        given["query"] = f"?ticket={await ticket_for(alice.here, document)}"
    elif way == "header":
        given["headers"] = {"Authorization": alice.here.headers["authorization"]}
    else:
        frames = [first_message(_token(alice.here))]
    assert await _closed(alice.here, document, *frames, **given) == 4403


async def test_own_page_and_listed_page(studio: Studio, alice: Pair) -> None:
    """The API's own origin may come in, and so may those of CORS_ORIGINS."""
    api = await studio.system.api(CORS_ORIGINS="https://app.example")
    someone = await studio.system.client(api, alice.here.workspace_id)
    document = await make_document(someone, "text")
    headers = {"Authorization": someone.headers["authorization"]}
    for origin in (someone.url, "https://app.example"):
        async with raw_sync(someone.url, document, headers=headers, origin=origin) as raw:
            assert b"text" in await raw.whole_document()
    assert await _closed(someone, document, headers=headers, origin=_STRANGER) == 4403
    assert await _closed(someone, document, headers=headers, origin="null") == 4403


async def test_document_that_is_not_there(alice: Pair) -> None:
    """Never made, or of another workspace: 4404 for a token that holds."""
    headers = {"Authorization": alice.here.headers["authorization"]}
    assert await _closed(alice.here, str(new_id()), headers=headers) == 4404
