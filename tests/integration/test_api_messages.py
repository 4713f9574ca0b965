"""Posting messages: what is stored, what a run is made with, and who comes first."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from common.config import Settings
from common.ids import new_id
from common.store.catalogue import Offers
from common.store.database import Pool
from common.store.run_schedule import claim_runs
from tests.support.api_client import live_api, make_conversation, offer, post_message, refusal_of
from tests.support.hand_worker import answer, claim, obey_cancel

MESSAGE_FIELDS = {
    "id",
    "conversationId",
    "runId",
    "role",
    "content",
    "reasoning",
    "toolCalls",
    "toolCallId",
    "isError",
    "outcome",
    "agentId",
    "provider",
    "model",
    "usage",
    "editedContent",
    "editedAt",
    "supersededAt",
    "createdBy",
    "createdAt",
}
RUN_FIELDS = {
    "id",
    "conversationId",
    "triggerMessageId",
    "agentId",
    "provider",
    "model",
    "state",
    "priority",
    "attempt",
    "stepCount",
    "finishReason",
    "error",
    "usage",
    "partialText",
    "timings",
    "createdBy",
    "createdAt",
    "startedAt",
    "finishedAt",
}


async def run_row(pool: Pool, client: httpx.AsyncClient, run_id: str) -> Any:
    """The run's row, with the columns that no answer shows."""
    async with pool.acquire() as connection, connection.transaction():
        workspace_id = client.headers["x-workspace-id"]
        await connection.execute(f"set local app.workspace_id = '{workspace_id}'")
        return await connection.fetchrow("select * from runs where id = $1", run_id)


@pytest.fixture
def client(client: httpx.AsyncClient, workspace_id: object) -> httpx.AsyncClient:
    """Alice, who names her workspace."""
    client.headers["x-workspace-id"] = str(workspace_id)
    return client


async def test_posted_message_is_stored_with_a_queued_run(client: httpx.AsyncClient) -> None:
    """202 with message, run and the address of its stream; every field is there, null when empty."""
    conversation_id = await make_conversation(client)

    accepted = await post_message(client, conversation_id, "hello")

    message, run = accepted["message"], accepted["run"]
    assert set(message) == MESSAGE_FIELDS
    assert set(run) == RUN_FIELDS
    assert (message["role"], message["content"], message["createdBy"]) == ("user", "hello", "alice")
    assert (run["state"], run["triggerMessageId"]) == ("queued", message["id"])
    assert run["timings"] == {"queuedMs": None, "firstTokenMs": None, "totalMs": None}
    assert accepted["streamUrl"] == f"/v1/runs/{run['id']}/stream"
    assert (await client.get(f"/v1/runs/{run['id']}")).json() == run


async def test_message_without_a_run_starts_none(client: httpx.AsyncClient, pool: Pool) -> None:
    """`run: false` stores a message of any role, also while the conversation is busy."""
    conversation_id = await make_conversation(client)
    await post_message(client, conversation_id)

    for role in ("user", "assistant", "system"):
        accepted = await post_message(client, conversation_id, role=role, run=False)
        assert (accepted["message"]["role"], accepted["run"], accepted["streamUrl"]) == (role, None, None)

    assert len((await client.get("/v1/runs")).json()["data"]) == 1


async def test_messages_are_listed_in_order_and_in_pieces(client: httpx.AsyncClient) -> None:
    """Oldest first; the pieces join without a gap."""
    conversation_id = await make_conversation(client)
    for i in range(5):
        await post_message(client, conversation_id, str(i), run=False)
    path = f"/v1/conversations/{conversation_id}/messages"

    first = (await client.get(path, params={"limit": 3})).json()
    second = (await client.get(path, params={"limit": 3, "cursor": first["nextCursor"]})).json()

    assert [m["content"] for m in first["data"] + second["data"]] == list("01234")
    assert second["nextCursor"] is None


@pytest.mark.parametrize(
    ("agent", "conversation", "message", "expected"),
    [
        ({}, {}, {}, ("echo", "echo")),
        ({"provider": "other", "model": "other-2"}, {}, {}, ("other", "other-2")),
        ({"provider": "other", "model": "a"}, {"model": "b"}, {}, ("other", "b")),
        ({"provider": "other", "model": "a"}, {"model": "b"}, {"model": "c"}, ("other", "c")),
        ({"provider": "other", "model": "a"}, {"provider": "echo"}, {}, ("echo", "echo")),
        ({}, {"provider": "other"}, {}, ("other", "other-1")),
        ({}, {"provider": "other", "model": "x"}, {"provider": "echo"}, ("echo", "echo")),
        ({}, {}, {"model": "echo?repeat=2"}, ("echo", "echo?repeat=2")),
    ],
)
async def test_run_uses_the_nearest_choice(
    client: httpx.AsyncClient,
    agent: dict[str, str],
    conversation: dict[str, str],
    message: dict[str, str],
    expected: tuple[str, str],
) -> None:
    """The message's choice, else the conversation's, else the agent's, else the default; a model does not outlive
    a change of provider."""
    agent_id = (await client.post("/v1/agents", json={"name": "Ada", **agent})).json()["id"]
    conversation_id = await make_conversation(client, agentId=agent_id, **conversation)

    accepted = await post_message(client, conversation_id, **message)

    assert (accepted["run"]["provider"], accepted["run"]["model"]) == expected
    assert accepted["run"]["agentId"] == agent_id
    stored = accepted["message"]
    assert (stored["agentId"], stored["provider"], stored["model"]) == (
        None,
        message.get("provider"),
        message.get("model"),
    )


async def test_run_keeps_what_it_was_made_with(client: httpx.AsyncClient, pool: Pool) -> None:
    """The run's row snapshots agent and conversation: a later change of either does not reach it."""
    fields = {"instructions": "Be exact.", "tools": ["send_mail"], "maxSteps": 3, "settings": {"temperature": 0.5}}
    agent_id = (await client.post("/v1/agents", json={"name": "Ada", **fields})).json()["id"]
    conversation_id = await make_conversation(client, agentId=agent_id, systemPrompt="Be kind.")
    run_id = (await post_message(client, conversation_id))["run"]["id"]

    await client.patch(f"/v1/agents/{agent_id}", json={"instructions": "Lie.", "tools": [], "maxSteps": 9})
    await client.patch(f"/v1/conversations/{conversation_id}", json={"systemPrompt": None})
    await client.delete(f"/v1/agents/{agent_id}")

    row = await run_row(pool, client, run_id)
    assert row["instructions"] == "Be exact.\n\nBe kind."
    assert (row["tools"], row["max_steps"], row["settings"]) == (["send_mail"], 3, {"temperature": 0.5})


async def test_run_without_an_agent_has_every_tool(client: httpx.AsyncClient, pool: Pool) -> None:
    """Where no agent limits them, all tools of the catalogue are at hand."""
    accepted = await post_message(client, await make_conversation(client))

    row = await run_row(pool, client, accepted["run"]["id"])
    assert row["tools"] == ["current_time", "send_mail"]
    assert (row["instructions"], row["max_steps"], row["settings"]) == ("", 20, {})


async def test_agent_of_the_message_comes_before_that_of_the_conversation(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    """`agentId` in a message chooses the agent of this one run."""
    agents = [
        (await client.post("/v1/agents", json={"name": name, "instructions": name})).json()["id"]
        for name in ("first", "second")
    ]
    conversation_id = await make_conversation(client, agentId=agents[0])

    accepted = await post_message(client, conversation_id, agentId=agents[1])

    assert accepted["run"]["agentId"] == accepted["message"]["agentId"] == agents[1]
    assert (await run_row(pool, client, accepted["run"]["id"]))["instructions"] == "second"


async def test_choice_that_cannot_run_is_refused(client: httpx.AsyncClient, pool: Pool) -> None:
    """An unknown provider, one without its key, an unknown agent, no model: 400, and nothing is stored."""
    conversation_id = await make_conversation(client)
    path = f"/v1/conversations/{conversation_id}/messages"
    for fields, code in (
        ({"provider": "nobody"}, "unknown_provider"),
        ({"provider": "anthropic"}, "provider_not_configured"),
        ({"agentId": str(new_id())}, "unknown_agent"),
        ({"agentId": str(new_id()), "run": False}, "unknown_agent"),
        ({"provider": "nobody", "run": False}, "unknown_provider"),
    ):
        answer_ = await client.post(path, json={"content": "x", **fields})
        assert refusal_of(answer_) == (400, code)
    await offer(pool, Offers())
    assert refusal_of(await client.post(path, json={"content": "x", "provider": "z"})) == (400, "invalid_request")

    assert (await client.get(path)).json()["data"] == []
    assert (await client.get("/v1/runs")).json()["data"] == []


async def test_deleted_agent_of_a_conversation_must_be_replaced(client: httpx.AsyncClient) -> None:
    """A conversation whose agent is gone runs nothing until another one, or none, is chosen."""
    agent_id = (await client.post("/v1/agents", json={"name": "Ada"})).json()["id"]
    conversation_id = await make_conversation(client, agentId=agent_id)
    await client.delete(f"/v1/agents/{agent_id}")
    path = f"/v1/conversations/{conversation_id}"

    assert refusal_of(await client.post(f"{path}/messages", json={"content": "x"})) == (400, "unknown_agent")

    await client.patch(path, json={"agentId": None})
    await post_message(client, conversation_id)


async def test_busy_conversation_refuses_a_second_run(client: httpx.AsyncClient, pool: Pool) -> None:
    """409 with the run that stands in the way, and nothing is stored; once it has ended there is room."""
    conversation_id = await make_conversation(client)
    run_id = (await post_message(client, conversation_id))["run"]["id"]
    path = f"/v1/conversations/{conversation_id}/messages"

    for _ in range(2):
        refused = await client.post(path, json={"content": "again"})
        assert refusal_of(refused) == (409, "conversation_busy")
        assert refused.json()["error"]["details"] == {"runId": run_id}
    assert len((await client.get(path)).json()["data"]) == 1

    await answer(pool)
    await post_message(client, conversation_id, "again")


async def test_enqueued_messages_run_in_order(client: httpx.AsyncClient, pool: Pool) -> None:
    """`enqueue` waits behind what is there: one active run at a time, in the order of the posts."""
    conversation_id = await make_conversation(client)
    posted = [await post_message(client, conversation_id, str(i), ifBusy="enqueue") for i in range(3)]

    assert [p["run"]["state"] for p in posted] == ["queued", "waiting", "waiting"]
    assert [str(await answer(pool, f"to {i}")) for i in range(3)] == [p["run"]["id"] for p in posted]
    messages = (await client.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
    assert [m["content"] for m in messages] == ["0", "to 0", "1", "to 1", "2", "to 2"]


async def test_interrupt_of_what_nobody_runs_takes_its_place(client: httpx.AsyncClient, pool: Pool) -> None:
    """Queued and waiting runs end on the spot as `interrupted`, and the new one is due at once."""
    conversation_id = await make_conversation(client)
    old = [await post_message(client, conversation_id, ifBusy="enqueue") for _ in range(2)]

    new = await post_message(client, conversation_id, ifBusy="interrupt")

    assert new["run"]["state"] == "queued"
    for posted in old:
        row = await run_row(pool, client, posted["run"]["id"])
        assert (row["state"], row["cancel_reason"]) == ("cancelled", "interrupted")
        assert row["terminal_event"] == '{"type":"cancelled","reason":"interrupted"}'
    assert str((await claim(pool)).run_id) == new["run"]["id"]


async def test_interrupt_of_a_running_run_waits_for_its_end(client: httpx.AsyncClient, pool: Pool) -> None:
    """A worker is asked to stop; the new run waits for that and no other one comes before it."""
    conversation_id = await make_conversation(client)
    await post_message(client, conversation_id)
    claimed = await claim(pool)
    waiting = await post_message(client, conversation_id, ifBusy="enqueue")

    new = await post_message(client, conversation_id, ifBusy="interrupt")

    assert new["run"]["state"] == "waiting"
    assert (await run_row(pool, client, str(claimed.run_id)))["cancel_reason"] == "interrupted"
    assert (await client.get(f"/v1/runs/{waiting['run']['id']}")).json()["state"] == "cancelled"
    assert await claim_runs(pool, "another", 10, 10) == []

    await obey_cancel(pool, claimed)
    assert str((await claim(pool)).run_id) == new["run"]["id"]


async def test_parallel_posts_of_one_conversation_make_one_active_run(client: httpx.AsyncClient) -> None:
    """Of many posts at once exactly one gets the place, and the others are told so."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"

    answers = await asyncio.gather(*(client.post(path, json={"content": str(i)}) for i in range(20)))

    assert sorted(answer_.status_code for answer_ in answers) == [202] + [409] * 19


async def test_posts_survive_a_redis_that_is_down(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """The bell, the signals and the log may be lost: what is committed is answered."""
    await offer(pool)
    nowhere = "redis://127.0.0.1:1"
    settings = msgspec.structs.replace(
        settings, redis_url=nowhere, queue_redis_url=nowhere, default_provider="echo", default_model="echo"
    )
    async with live_api(settings) as api:
        client = await api.member(workspace_id)
        conversation_id = await make_conversation(client)
        await post_message(client, conversation_id)
        await claim(pool)
        await post_message(client, conversation_id, ifBusy="enqueue")

        accepted = await post_message(client, conversation_id, ifBusy="interrupt")

        assert accepted["run"]["state"] == "waiting"
