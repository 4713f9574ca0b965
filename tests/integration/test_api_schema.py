"""The OpenAPI document against the application: schemathesis makes the requests, and judges the answers."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, post_message
from tests.support.hand_worker import answer, answer_all
from tests.support.schema_fuzz import EXAMPLES, fuzz


@pytest.fixture
async def ids(client: httpx.AsyncClient, pool: Pool) -> AsyncIterator[dict[str, str]]:
    """One of everything, by the name of its path parameter, while somebody ends all runs."""
    agent_id = (await client.post("/v1/agents", json={"name": "Ada"})).json()["id"]
    conversation_id = await make_conversation(client)
    document = (await client.post("/v1/documents", json={"name": "D", "content": "text"})).json()
    posted = await post_message(client, conversation_id)
    await answer(pool)
    answering = asyncio.create_task(answer_all(pool))
    yield {
        "agent_id": agent_id,
        "conversation_id": conversation_id,
        "document_id": document["id"],
        "message_id": posted["message"]["id"],
        "run_id": posted["run"]["id"],
    }
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


@pytest.mark.timeout(240 + 2 * EXAMPLES * 40)
async def test_every_answer_is_one_that_the_document_promises(
    api: LiveApi, client: httpx.AsyncClient, ids: dict[str, str]
) -> None:
    """Good and bad requests of every operation: no error of ours, no status, type or shape that is not documented, and
    nothing accepted that the document forbids."""
    document = (await client.get("/schema/openapi.json")).json()
    headers = {"Authorization": client.headers["authorization"]}

    answers = await asyncio.to_thread(fuzz, document, api.url, headers, ids)

    assert answers["2xx"] > 10
    assert answers["4xx"] > 20
    assert set(answers) == {"2xx", "4xx"}
