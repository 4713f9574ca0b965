"""Two workspaces know nothing of each other: inner ids, lists, bodies. The crawl of all operations stands beside it."""

import httpx
import pytest

from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import make_conversation, post_message, refusal_of
from tests.support.hand_worker import answer


@pytest.fixture
async def ids(client: httpx.AsyncClient, pool: Pool) -> dict[str, str]:
    """One of everything that the client has, by the name of its path parameter."""
    agent_id = (await client.post("/v1/agents", json={"name": "Ada"})).json()["id"]
    conversation_id = await make_conversation(client, title="secret", agentId=agent_id)
    document = (await client.post("/v1/documents", json={"name": "secret", "content": "secret"})).json()
    posted = await post_message(client, conversation_id)
    await answer(pool)
    return {
        "agent_id": agent_id,
        "conversation_id": conversation_id,
        "document_id": document["id"],
        "message_id": posted["message"]["id"],
        "run_id": posted["run"]["id"],
    }


async def test_message_of_another_workspace_is_not_found_in_ones_own_conversation(
    stranger: httpx.AsyncClient, ids: dict[str, str]
) -> None:
    """An inner id is looked up in the asker's workspace as well, not only the outer one."""
    mine = await make_conversation(stranger)
    for method, tail, body in (("PUT", "", {"content": "x"}), ("POST", "/regenerate", {})):
        answers = [
            await stranger.request(method, f"/v1/conversations/{mine}/messages/{message_id}{tail}", json=body)
            for message_id in (ids["message_id"], new_id())
        ]
        assert refusal_of(answers[0]) == (404, "not_found")
        assert answers[0].content == answers[1].content


async def test_lists_show_ones_own_workspace_alone(stranger: httpx.AsyncClient, ids: dict[str, str]) -> None:
    """Lists, filters and searches find nothing of another workspace."""
    for path in (
        "/v1/agents",
        "/v1/conversations",
        "/v1/conversations?q=secret",
        "/v1/runs",
        f"/v1/runs?conversationId={ids['conversation_id']}",
    ):
        assert (await stranger.get(path)).json() == {"data": [], "nextCursor": None}, path


async def test_ids_in_bodies_are_of_ones_own_workspace(stranger: httpx.AsyncClient, ids: dict[str, str]) -> None:
    """A foreign id in a body is answered as an unknown one."""
    mine = await make_conversation(stranger)

    async def answers(agent_id: str, run_id: str, conversation_id: str) -> list[tuple[int, bytes]]:
        found = [
            await stranger.post("/v1/conversations", json={"agentId": agent_id}),
            await stranger.patch(f"/v1/conversations/{mine}", json={"agentId": agent_id}),
            await stranger.post(f"/v1/conversations/{mine}/messages", json={"content": "x", "agentId": agent_id}),
            await stranger.post("/v1/tickets", json={"runId": run_id}),
            await stranger.post("/v1/tickets", json={"conversationId": conversation_id}),
        ]
        return [(one.status_code, one.content) for one in found]

    foreign = await answers(ids["agent_id"], ids["run_id"], ids["conversation_id"])

    assert [status for status, _ in foreign] == [400, 400, 400, 404, 404]
    assert foreign == await answers(str(new_id()), str(new_id()), str(new_id()))


async def test_cursor_of_another_workspace_is_refused(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    """A cursor leads on in the workspace that gave it, and is no cursor anywhere else."""
    for _ in range(2):
        await make_conversation(client)
    cursor = (await client.get("/v1/conversations", params={"limit": 1})).json()["nextCursor"]

    refused = await stranger.get("/v1/conversations", params={"cursor": cursor})

    assert refusal_of(refused) == (400, "invalid_cursor")
    assert refused.content == (await stranger.get("/v1/conversations", params={"cursor": "x"})).content
