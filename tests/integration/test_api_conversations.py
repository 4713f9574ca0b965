"""Conversations over HTTP."""

from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest

from api.pagination import ListCursor
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import make_conversation, post_message, refusal_of
from tests.support.hand_worker import answer, claim


async def test_conversation_is_made_empty(client: httpx.AsyncClient) -> None:
    """Nothing is needed; every field is answered, null when empty."""
    made = await client.post("/v1/conversations", json={})

    assert made.status_code == 201
    conversation = made.json()
    assert conversation.pop("id")[14] == "7"
    assert conversation.pop("createdAt").endswith("Z")
    assert conversation.pop("updatedAt").endswith("Z")
    assert conversation.pop("createdBy") == "alice"
    assert conversation == dict.fromkeys(
        ["title", "agentId", "provider", "model", "systemPrompt", "pinnedAt", "archivedAt", "lastMessageAt"]
    )


async def test_conversation_is_read_with_its_messages_and_active_run(client: httpx.AsyncClient, pool: Pool) -> None:
    """GET shows the conversation, its messages in order, and the run that keeps it busy."""
    conversation_id = await make_conversation(client, title="T", systemPrompt="Be kind.")
    await post_message(client, conversation_id, "one")
    await answer(pool, "two")
    third = await post_message(client, conversation_id, "three")

    found = (await client.get(f"/v1/conversations/{conversation_id}")).json()

    assert (found["title"], found["systemPrompt"]) == ("T", "Be kind.")
    assert [(m["role"], m["content"]) for m in found["messages"]] == [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]
    assert found["activeRun"] == third["run"]
    assert found["lastMessageAt"] is not None


async def test_conversation_shows_its_last_run(client: httpx.AsyncClient, pool: Pool) -> None:
    """Null before the first run; then the active one, and once all have ended the newest, with how it ended."""
    path = f"/v1/conversations/{await make_conversation(client)}"
    assert (await client.get(path)).json()["lastRun"] is None

    await post_message(client, path.rpartition("/")[2], "one")
    await answer(pool, "two")
    second = (await post_message(client, path.rpartition("/")[2], "three"))["run"]
    third = (await post_message(client, path.rpartition("/")[2], "four", ifBusy="enqueue"))["run"]
    busy = (await client.get(path)).json()
    await client.post(f"/v1/runs/{third['id']}/cancel")
    await client.post(f"/v1/runs/{second['id']}/cancel")
    idle = (await client.get(path)).json()

    assert busy["lastRun"] == busy["activeRun"] == second
    assert idle["activeRun"] is None
    assert (idle["lastRun"]["id"], idle["lastRun"]["state"]) == (third["id"], "cancelled")


async def test_conversation_without_messages_when_not_asked_for(client: httpx.AsyncClient) -> None:
    """`?messages=false` leaves them out: null, not empty."""
    conversation_id = await make_conversation(client)
    await post_message(client, conversation_id, "one", run=False)

    found = (await client.get(f"/v1/conversations/{conversation_id}", params={"messages": "false"})).json()

    assert found["messages"] is None
    assert found["activeRun"] is None


async def test_change_of_a_conversation_tells_absent_from_null(client: httpx.AsyncClient) -> None:
    """PATCH leaves absent fields and clears those that are null."""
    conversation_id = await make_conversation(client, title="T", systemPrompt="S", provider="other", model="other-1")
    path = f"/v1/conversations/{conversation_id}"

    changed = (await client.patch(path, json={"systemPrompt": None, "model": "other-2"})).json()

    assert (changed["title"], changed["systemPrompt"], changed["provider"], changed["model"]) == (
        "T",
        None,
        "other",
        "other-2",
    )
    assert (await client.patch(path, json={})).json() | {"updatedAt": 0} == changed | {"updatedAt": 0}


@pytest.mark.parametrize("mark", ["pinned", "archived"])
async def test_pin_and_archive_keep_their_first_time(client: httpx.AsyncClient, mark: str) -> None:
    """True sets the time once, false and null take it away."""
    path = f"/v1/conversations/{await make_conversation(client)}"

    first = (await client.patch(path, json={mark: True})).json()[f"{mark}At"]
    again = (await client.patch(path, json={mark: True})).json()[f"{mark}At"]

    assert first is not None
    assert again == first
    for off in (False, None):
        await client.patch(path, json={mark: True})
        assert (await client.patch(path, json={mark: off})).json()[f"{mark}At"] is None


async def test_list_shows_archived_and_pinned_ones_when_asked(client: httpx.AsyncClient) -> None:
    """Archived ones are apart from the others; `pinned` chooses in both directions."""
    plain, pinned, archived = [await make_conversation(client) for _ in range(3)]
    await client.patch(f"/v1/conversations/{pinned}", json={"pinned": True})
    await client.patch(f"/v1/conversations/{archived}", json={"archived": True})

    async def listed(**params: str) -> list[str]:
        return [c["id"] for c in (await client.get("/v1/conversations", params=params)).json()["data"]]

    assert await listed() == [pinned, plain]
    assert await listed(pinned="true") == [pinned]
    assert await listed(pinned="false") == [plain]
    assert await listed(archived="true") == [archived]
    assert await listed(archived="true", pinned="true") == []


async def test_search_finds_parts_of_titles_literally(client: httpx.AsyncClient) -> None:
    """`q` matches in any case of letters, and wildcards of SQL mean themselves."""
    for title in ("100% sure", "Under_score", "back\\slash", "Straße", None):
        await make_conversation(client, title=title)

    async def found(text: str) -> list[str]:
        return [c["title"] for c in (await client.get("/v1/conversations", params={"q": text})).json()["data"]]

    assert await found("SURE") == ["100% sure"]
    assert await found("%") == ["100% sure"]
    assert await found("_") == ["Under_score"]
    assert await found("\\") == ["back\\slash"]
    assert await found("straSSe") == []
    assert await found("aße") == ["Straße"]


async def test_cursor_is_of_one_list_with_its_filters(client: httpx.AsyncClient) -> None:
    """A cursor of another list, of other filters or of nobody is refused."""
    for _ in range(2):
        await make_conversation(client)
    cursor = (await client.get("/v1/conversations", params={"limit": 1})).json()["nextCursor"]

    good = await client.get("/v1/conversations", params={"limit": 1, "cursor": cursor})
    assert len(good.json()["data"]) == 1
    for path, params in (
        ("/v1/conversations", {"archived": "true", "cursor": cursor}),
        ("/v1/runs", {"cursor": cursor}),
        ("/v1/conversations", {"cursor": cursor[:-1]}),
        ("/v1/conversations", {"cursor": cursor + "A"}),
        ("/v1/conversations", {"cursor": ""}),
        ("/v1/conversations", {"cursor": "ü\x00"}),
    ):
        assert refusal_of(await client.get(path, params=params)) == (400, "invalid_cursor"), params


async def test_forged_cursor_is_refused(client: httpx.AsyncClient, workspace_id: UUID) -> None:
    """A cursor in the right form whose position no list can have: 400, not an error of the database."""
    conversation_id = await make_conversation(client)
    path = f"/v1/conversations/{conversation_id}/messages"
    messages = ListCursor("messages", workspace_id, UUID(conversation_id), False)
    agents = ListCursor("agents", workspace_id)

    for place in ((2**31, 0), (-1, 0), (0, 2**63), ("1", 0), (1,), (1, 2, 3), ()):
        cursor = messages.write(place)
        assert refusal_of(await client.get(path, params={"cursor": cursor})) == (400, "invalid_cursor"), place
    for position in (
        ("0001-01-01T00:00:00+14:00", new_id()),
        ("2026-01-01T00:00:00Z", new_id()),
        ("2026-01-01T00:00:00", new_id()),
        (1, new_id()),
        (datetime.now(UTC), "x"),
    ):
        cursor = agents.write(position)
        refused = await client.get("/v1/agents", params={"cursor": cursor})
        assert refusal_of(refused) == (400, "invalid_cursor"), position
    assert (await client.get(path, params={"cursor": messages.write((1, 0))})).status_code == 200


async def test_deleted_conversation_is_gone_and_its_runs_are_cancelled(client: httpx.AsyncClient, pool: Pool) -> None:
    """DELETE hides the conversation with its messages and runs, ends what waits and asks the worker to stop."""
    conversation_id = await make_conversation(client)
    running = await post_message(client, conversation_id)
    claimed = await claim(pool)
    waiting = await post_message(client, conversation_id, ifBusy="enqueue")
    path = f"/v1/conversations/{conversation_id}"

    assert (await client.delete(path)).status_code == 204

    for gone in (path, f"{path}/messages", f"/v1/runs/{running['run']['id']}", f"/v1/runs/{waiting['run']['id']}"):
        assert refusal_of(await client.get(gone)) == (404, "not_found")
    assert refusal_of(await client.delete(path)) == (404, "not_found")
    assert (await client.get("/v1/conversations")).json()["data"] == []
    assert (await client.get("/v1/runs")).json()["data"] == []
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"set local app.workspace_id = '{claimed.workspace_id}'")
        rows = await connection.fetch("select state, cancel_reason, cancel_requested_at from runs order by turn")
    assert [(row["state"], row["cancel_reason"]) for row in rows] == [
        ("running", "conversation_deleted"),
        ("cancelled", "conversation_deleted"),
    ]
    assert rows[0]["cancel_requested_at"] is not None


async def test_conversation_with_an_unknown_agent_is_refused(client: httpx.AsyncClient) -> None:
    """An agent that does not exist, or was deleted, cannot be chosen for a conversation."""
    agent_id = (await client.post("/v1/agents", json={"name": "Ada"})).json()["id"]
    conversation_id = await make_conversation(client, agentId=agent_id)
    await client.delete(f"/v1/agents/{agent_id}")

    for unknown in (agent_id, str(new_id())):
        made = await client.post("/v1/conversations", json={"agentId": unknown})
        changed = await client.patch(f"/v1/conversations/{conversation_id}", json={"agentId": unknown})
        assert refusal_of(made) == refusal_of(changed) == (400, "unknown_agent")
