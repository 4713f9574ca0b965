"""An operator starts a failed run again: once, as it was, and only where nothing has come since."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from common.ids import new_id
from common.model.run_state import RunErrorCode
from common.store.database import Pool, workspace_transaction
from common.store.housekeeping import remove_run_details
from common.store.run_schedule import poll_runs
from tests.support.api_client import LiveApi, make_conversation, make_token, post_message, refusal_of
from tests.support.hand_worker import answer, claim, commit_step, fail


@pytest.fixture
async def operator(api: LiveApi) -> httpx.AsyncClient:
    """A superuser who is no member of the client's workspace."""
    return await api.client(make_token(api.settings.jwt_secret, user="olga", is_superuser=True))


@pytest.fixture
async def conversation(client: httpx.AsyncClient) -> str:
    """A conversation of the client."""
    return await make_conversation(client)


@pytest.fixture
async def failed(client: httpx.AsyncClient, conversation: str, pool: Pool) -> str:
    """A run of it that failed after its first step."""
    run = (await post_message(client, conversation, "hello", model="echo?delayMs=1"))["run"]
    claimed = await claim(pool)
    await commit_step(pool, claimed, "half an answer")
    await fail(pool, claimed, RunErrorCode.CRASH_LOOP)
    return str(run["id"])


async def _requeue(operator: httpx.AsyncClient, run_id: object) -> httpx.Response:
    return await operator.post(f"/v1/ops/runs/{run_id}/requeue")


async def _listed(operator: httpx.AsyncClient) -> Any:
    [run] = (await operator.get("/v1/ops/failed-runs")).json()["data"]
    return run


async def _detail(client: httpx.AsyncClient, conversation: str) -> Any:
    return (await client.get(f"/v1/conversations/{conversation}")).json()


async def test_failed_run_is_started_again_as_it_was(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, conversation: str, failed: str, pool: Pool
) -> None:
    """A new run of the same turn, for the same user with the same model; the failed one stays, its output goes."""
    before = (await client.get(f"/v1/runs/{failed}")).json()

    accepted = await _requeue(operator, failed)

    assert accepted.status_code == 202, accepted.text
    requeue = accepted.json()
    assert (requeue["runId"], requeue["requeuedBy"]) == (failed, "olga")
    begun = (await client.get(f"/v1/runs/{requeue['newRunId']}")).json()
    same = ("conversationId", "triggerMessageId", "agentId", "provider", "model", "createdBy")
    assert {name: begun[name] for name in same} == {name: before[name] for name in same}
    assert (begun["state"], begun["createdBy"], begun["model"]) == ("queued", "alice", "echo?delayMs=1")
    assert (await client.get(f"/v1/runs/{failed}")).json() == before
    assert await answer(pool, "a whole answer") == UUID(requeue["newRunId"])
    detail = await _detail(client, conversation)
    assert [message["content"] for message in detail["messages"]] == ["hello", "a whole answer"]
    assert detail["lastRun"]["id"] == requeue["newRunId"]


async def test_two_clicks_start_one_run(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, failed: str, pool: Pool
) -> None:
    """At the same time or after the new run has ended: the answer is the first one, and the list shows it."""
    answers = await asyncio.gather(*(_requeue(operator, failed) for _ in range(5)))
    await answer(pool)
    answers.append(await _requeue(operator, failed))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert len((await client.get("/v1/runs")).json()["data"]) == 2
    listed = await _listed(operator)
    assert (listed["requeue"], listed["requeueable"]) == (answers[0].json(), False)


async def test_run_that_fails_again_may_be_started_again(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, failed: str, pool: Pool
) -> None:
    """Each run once: the second failure is one of its own."""
    again = (await _requeue(operator, failed)).json()["newRunId"]
    await fail(pool, await claim(pool))

    third = (await _requeue(operator, again)).json()["newRunId"]

    assert len({failed, again, third}) == 3
    assert (await client.get(f"/v1/runs/{third}")).json()["state"] == "queued"


async def test_busy_conversation_is_left_alone(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, conversation: str, failed: str
) -> None:
    """With another run under way nothing is started."""
    await post_message(client, conversation, "and now?")

    assert refusal_of(await _requeue(operator, failed)) == (409, "conversation_busy")
    assert len((await client.get("/v1/runs")).json()["data"]) == 2


@pytest.mark.parametrize("since", ["a message", "an answer", "another answer to its message"])
async def test_conversation_that_went_on_is_left_alone(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, conversation: str, failed: str, pool: Pool, since: str
) -> None:
    """Whatever came after the failure, an operator does not take it back."""
    if since == "a message":
        posted = await client.post(f"/v1/conversations/{conversation}/messages", json={"content": "x", "run": False})
        assert posted.status_code == 202, posted.text
    elif since == "an answer":
        await post_message(client, conversation, "and now?")
        await answer(pool)
    else:
        [message, *_] = (await _detail(client, conversation))["messages"]
        path = f"/v1/conversations/{conversation}/messages/{message['id']}/regenerate"
        assert (await client.post(path, json={})).status_code == 202
        await answer(pool)
    before = await _detail(client, conversation)

    assert refusal_of(await _requeue(operator, failed)) == (409, "conversation_went_on")
    assert await _detail(client, conversation) == before
    listed = await _listed(operator)
    assert (listed["outdated"], listed["requeueable"]) == (since != "a message", since == "a message")


async def test_run_that_did_not_fail_is_not_started_again(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, conversation: str, pool: Pool
) -> None:
    """Neither one that is under way nor one that has completed."""
    run_id = (await post_message(client, conversation))["run"]["id"]
    assert refusal_of(await _requeue(operator, run_id)) == (409, "run_not_failed")
    await answer(pool)
    assert refusal_of(await _requeue(operator, run_id)) == (409, "run_not_failed")


async def test_run_of_a_deleted_conversation_is_not_there(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, conversation: str, failed: str
) -> None:
    """Deleted means gone, for operators, too: as if there had never been such a run; the list says that it is so."""
    assert (await _listed(operator))["requeueable"] is True
    assert (await client.delete(f"/v1/conversations/{conversation}")).status_code == 204
    listed = await _listed(operator)
    assert (listed["conversationDeleted"], listed["requeueable"]) == (True, False)

    refused = await _requeue(operator, failed)

    assert refusal_of(refused) == (404, "not_found")
    assert refused.content == (await _requeue(operator, new_id())).content


async def test_run_without_its_details_is_not_started_again(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, conversation: str, failed: str, pool: Pool
) -> None:
    """Once housekeeping has removed what it was made of, it would run with no instructions and no tools: the list says
    so beforehand. Its user can still have the message answered anew."""
    position = next(iter(await poll_runs(pool, [UUID(failed)])))
    async with workspace_transaction(pool, position.workspace_id) as connection:
        assert await remove_run_details(connection, [UUID(failed)]) == 1
    before = await _detail(client, conversation)
    listed = await _listed(operator)
    assert (listed["detailsRemoved"], listed["requeueable"]) == (True, False)

    assert refusal_of(await _requeue(operator, failed)) == (409, "run_details_removed")
    assert await _detail(client, conversation) == before
    again = f"/v1/conversations/{conversation}/messages/{before['messages'][0]['id']}/regenerate"
    assert (await client.post(again, json={})).status_code == 202
