"""`priority`: settable wherever a run begins, shown on the run, and carried along to the bell that rings for it."""

from typing import Any, cast

import httpx
import pytest
from redis.asyncio import Redis

from common.model.run_state import Priority
from common.queue import QUEUES, wake_of
from common.store.database import Pool
from tests.support.api_client import make_conversation, post_message, refusal_of
from tests.support.hand_worker import answer, claim
from tests.support.openai_api import respond, run_of
from tests.support.ui_chat import begin, said


async def _bells(redis: Redis) -> dict[Priority, int]:
    """How many ring for each priority."""
    return {priority: await cast(Any, redis.llen(wake_of(queue))) for priority, queue in QUEUES.items()}


async def test_run_is_interactive_unless_told_otherwise(client: httpx.AsyncClient, redis: Redis) -> None:
    """`priority` makes it a background run; both are shown as what they are, and rung for where they are served."""
    plain = await post_message(client, await make_conversation(client))
    patient = await post_message(client, await make_conversation(client), priority="background")
    assert (plain["run"]["priority"], patient["run"]["priority"]) == ("interactive", "background")
    listed = (await client.get("/v1/runs")).json()["data"]
    assert [run["priority"] for run in listed] == ["background", "interactive"]
    assert await _bells(redis) == {Priority.INTERACTIVE: 1, Priority.BACKGROUND: 1}


async def test_regeneration_has_a_priority_of_its_own(client: httpx.AsyncClient, pool: Pool) -> None:
    """It does not inherit that of the run that it replaces: somebody may be waiting now."""
    conversation_id = await make_conversation(client)
    posted = await post_message(client, conversation_id, priority="background")
    path = f"/v1/conversations/{conversation_id}/messages/{posted['message']['id']}/regenerate"
    await answer(pool)
    assert (await client.post(path)).json()["run"]["priority"] == "interactive"
    await answer(pool)
    assert (await client.post(path, json={"priority": "background"})).json()["run"]["priority"] == "background"


async def test_waiting_run_keeps_its_priority(client: httpx.AsyncClient, pool: Pool, redis: Redis) -> None:
    """When its turn comes, it is rung for where background runs are served, and is claimed as one."""
    conversation_id = await make_conversation(client)
    first = await post_message(client, conversation_id)
    second = await post_message(client, conversation_id, ifBusy="enqueue", priority="background")
    assert await _bells(redis) == {Priority.INTERACTIVE: 1, Priority.BACKGROUND: 0}
    await client.post(f"/v1/runs/{first['run']['id']}/cancel")
    assert await _bells(redis) == {Priority.INTERACTIVE: 1, Priority.BACKGROUND: 1}
    claimed = await claim(pool)
    assert str(claimed.run_id) == second["run"]["id"]
    run = (await client.get(f"/v1/runs/{claimed.run_id}")).json()
    assert (run["state"], run["priority"]) == ("running", "background")


async def test_chat_of_the_ai_sdk_names_it_beside_the_messages(client: httpx.AsyncClient) -> None:
    """As `ifBusy` and `model`; for a new message and for another try."""
    await begin(client, said("one"), priority="background")
    await begin(client, said("one"), trigger="regenerate-message")
    listed = (await client.get("/v1/runs")).json()["data"]
    assert [run["priority"] for run in listed] == ["interactive", "background"]


@pytest.mark.parametrize(("tier", "priority"), [("flex", "background"), ("auto", "interactive"), (None, "interactive")])
async def test_flex_response_is_a_background_run(client: httpx.AsyncClient, tier: str | None, priority: str) -> None:
    """OpenAI's word for what may take its time."""
    response = await respond(client, service_tier=tier)
    assert (await client.get(f"/v1/runs/{run_of(response)}")).json()["priority"] == priority


@pytest.mark.parametrize("priority", ["urgent", 1, None, ""])
async def test_other_words_are_refused(client: httpx.AsyncClient, priority: Any) -> None:
    """400, and no run begins."""
    path = f"/v1/conversations/{await make_conversation(client)}/messages"
    refused = await client.post(path, json={"content": "hello", "priority": priority})
    assert refusal_of(refused) == (400, "invalid_request")
    assert refused.json()["error"]["message"].startswith("priority: ")
    assert (await client.get("/v1/runs")).json()["data"] == []
