"""Tickets: good for one stream, first within 60 s, then until the token that minted them ends."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from api.auth import Principal, WorkspaceRole
from api.commands.tickets import redeem_ticket
from common.errors import ErrorCode, ThroughlineError
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, make_token, post_message, refusal_of


@pytest.fixture
async def run(client: httpx.AsyncClient) -> Any:
    """A run of the client's workspace."""
    return (await post_message(client, await make_conversation(client)))["run"]


async def redeem(api: LiveApi, ticket: str, kind: Any, subject_id: object) -> Principal:
    return await redeem_ticket(api.app.state.resources, ticket, kind, UUID(str(subject_id)))


async def assert_refused(api: LiveApi, ticket: str, kind: Any, subject_id: object) -> None:
    with pytest.raises(ThroughlineError) as caught:
        await redeem(api, ticket, kind, subject_id)
    assert caught.value.code is ErrorCode.UNAUTHORIZED


async def test_ticket_opens_the_stream_of_its_subject_again_and_again(
    api: LiveApi, client: httpx.AsyncClient, run: Any, workspace_id: UUID
) -> None:
    """It stands for whoever minted it, for a run or a conversation, as often as EventSource reconnects."""
    for kind, subject_id in (("run", run["id"]), ("conversation", run["conversationId"])):
        minted = await client.post("/v1/tickets", json={f"{kind}Id": subject_id})

        assert minted.status_code == 201
        assert set(minted.json()) == {"ticket", "expiresAt"}
        left = datetime.fromisoformat(minted.json()["expiresAt"]) - datetime.now(UTC)
        assert 50 < left.total_seconds() <= 60
        for _ in range(2):
            principal = await redeem(api, minted.json()["ticket"], kind, subject_id)
            assert principal[:3] == ("alice", workspace_id, WorkspaceRole.MEMBER)
            assert principal.expires_at.timestamp() > time.time() + 3000


async def test_ticket_is_good_for_nothing_else(
    api: LiveApi, client: httpx.AsyncClient, stranger: httpx.AsyncClient, run: Any, workspace_id: UUID
) -> None:
    """Another subject, another kind, another workspace, another secret: refused."""
    ticket = (await client.post("/v1/tickets", json={"runId": run["id"]})).json()["ticket"]
    foreign = (await post_message(stranger, await make_conversation(stranger)))["run"]

    await assert_refused(api, ticket, "run", new_id())
    await assert_refused(api, ticket, "conversation", run["conversationId"])
    await assert_refused(api, ticket, "run", foreign["id"])
    await assert_refused(api, ticket.replace(workspace_id.hex, new_id().hex), "run", run["id"])
    await assert_refused(api, ticket[:-1] + ("A" if ticket[-1] != "A" else "B"), "run", run["id"])
    for malformed in ("", "x", "tkt__", f"tkt_{workspace_id.hex}_", ticket + "\n", "tkt_" + "\x00" * 80):
        await assert_refused(api, malformed, "run", run["id"])


async def test_ticket_that_was_not_used_within_a_minute_is_dead(
    api: LiveApi, client: httpx.AsyncClient, run: Any, database_url: str
) -> None:
    """Late first use is refused; a ticket that was used in time goes on."""
    early, late = [(await client.post("/v1/tickets", json={"runId": run["id"]})).json()["ticket"] for _ in range(2)]
    await redeem(api, early, "run", run["id"])
    owner = await asyncpg.connect(database_url)
    await owner.execute("update tickets set redeem_by = clock_timestamp() - interval '1 second'")
    await owner.close()

    await redeem(api, early, "run", run["id"])
    await assert_refused(api, late, "run", run["id"])


async def test_ticket_ends_with_the_token_that_minted_it(
    api: LiveApi, run: Any, workspace_id: UUID, database_url: str
) -> None:
    """A ticket never outlives its token, redeemed or not."""
    token = make_token(api.settings.jwt_secret, (workspace_id, "member"), exp=int(time.time()) + 20)
    minted = (await (await api.client(token)).post("/v1/tickets", json={"runId": run["id"]})).json()
    assert datetime.fromisoformat(minted["expiresAt"]).timestamp() <= time.time() + 20
    await redeem(api, minted["ticket"], "run", run["id"])
    owner = await asyncpg.connect(database_url)
    await owner.execute("update tickets set expires_at = clock_timestamp()")
    await owner.close()

    await assert_refused(api, minted["ticket"], "run", run["id"])


async def test_ticket_text_is_stored_nowhere(client: httpx.AsyncClient, run: Any, database_url: str) -> None:
    """The database has a hash of the secret part alone."""
    ticket = (await client.post("/v1/tickets", json={"runId": run["id"]})).json()["ticket"]
    owner = await asyncpg.connect(database_url)
    row = await owner.fetchrow("select t::text as everything, hash from tickets t")
    await owner.close()

    assert len(row["hash"]) == 32
    _, _, secret = ticket.split("_", 2)  # which may have a "_" of its own
    assert len(secret) > 40
    assert secret not in row["everything"]


async def test_ticket_for_nothing_is_refused(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, run: Any, pool: Pool
) -> None:
    """Exactly one subject, which exists in this workspace."""
    for body in ({}, {"runId": run["id"], "conversationId": run["conversationId"]}, {"runId": None}):
        assert refusal_of(await client.post("/v1/tickets", json=body)) == (400, "invalid_request")
    for body in ({"runId": run["id"]}, {"conversationId": run["conversationId"]}, {"runId": str(new_id())}):
        assert refusal_of(await stranger.post("/v1/tickets", json=body)) == (404, "not_found")


async def test_viewer_may_mint_a_ticket(api: LiveApi, run: Any, workspace_id: UUID) -> None:
    """Watching a stream is reading."""
    viewer = await api.member(workspace_id, "viewer")

    assert (await viewer.post("/v1/tickets", json={"runId": run["id"]})).status_code == 201
