"""Runs over HTTP, and cancelling them."""

import asyncio
import time

import httpx
from redis.asyncio import Redis

from common.eventlog.keys import cancel_channel
from common.eventlog.log import EventLog
from common.ids import EventId
from common.store.database import Pool
from tests.support.api_client import make_conversation, post_message
from tests.support.eventually import eventually
from tests.support.hand_worker import answer, claim, obey_cancel


async def test_completed_run_shows_how_it_went(client: httpx.AsyncClient, pool: Pool) -> None:
    """State, finish reason, times and usage are those of the row."""
    run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
    await answer(pool)

    run = (await client.get(f"/v1/runs/{run_id}")).json()

    assert (run["state"], run["finishReason"], run["error"]) == ("completed", "stop", None)
    assert run["finishedAt"] >= run["startedAt"] >= run["createdAt"]
    assert 0 <= run["timings"]["queuedMs"] <= run["timings"]["totalMs"]
    assert run["usage"] == {
        "inputTokens": 0,
        "outputTokens": 0,
        "cachedInputTokens": 0,
        "cacheWriteTokens": 0,
        "reasoningTokens": 0,
        "estimated": False,
    }


async def test_runs_are_listed_by_conversation_and_state(client: httpx.AsyncClient, pool: Pool) -> None:
    """Newest first; both filters narrow the list, and pages join."""
    first, second = await make_conversation(client), await make_conversation(client)
    ended = (await post_message(client, first))["run"]["id"]
    await answer(pool)
    active = (await post_message(client, first))["run"]["id"]
    other = (await post_message(client, second))["run"]["id"]

    async def listed(**params: str) -> list[str]:
        return [run["id"] for run in (await client.get("/v1/runs", params=params)).json()["data"]]

    assert await listed() == [other, active, ended]
    assert await listed(conversationId=first) == [active, ended]
    assert await listed(state="completed") == [ended]
    assert await listed(conversationId=second, state="completed") == []
    page = (await client.get("/v1/runs", params={"limit": 2})).json()
    assert await listed(limit="2", cursor=page["nextCursor"]) == [ended]


async def test_cancel_of_a_queued_run_ends_it_on_the_spot(client: httpx.AsyncClient, pool: Pool, redis: Redis) -> None:
    """Nobody runs it, so it has ended when the call answers; its log says so, and the next run is due."""
    conversation_id = await make_conversation(client)
    run_id = (await post_message(client, conversation_id))["run"]["id"]
    waiting = (await post_message(client, conversation_id, ifBusy="enqueue"))["run"]["id"]

    cancelled = await client.post(f"/v1/runs/{run_id}/cancel")

    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    log = EventLog(redis, 60)
    events = await log.read_after(cancelled.json()["id"], None, 10)
    assert [event.id for event in events] == [EventId(1, 1), EventId(1, 2)]
    assert events[1].data == b'{"type":"cancelled","reason":"user"}'
    assert (await client.get(f"/v1/runs/{waiting}")).json()["state"] == "queued"


async def test_cancel_of_a_waiting_run_leaves_the_active_one(client: httpx.AsyncClient, pool: Pool) -> None:
    """Only the run that was named ends."""
    conversation_id = await make_conversation(client)
    active = (await post_message(client, conversation_id))["run"]["id"]
    waiting = (await post_message(client, conversation_id, ifBusy="enqueue"))["run"]["id"]

    assert (await client.post(f"/v1/runs/{waiting}/cancel")).json()["state"] == "cancelled"

    assert str((await claim(pool)).run_id) == active


async def test_cancel_of_a_running_run_waits_for_its_worker(
    client: httpx.AsyncClient, pool: Pool, redis: Redis
) -> None:
    """The request is committed, the worker is signalled, and the call answers once the worker has obeyed."""
    run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
    claimed = await claim(pool)
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(cancel_channel())
        await pubsub.get_message(timeout=1)
        calling = asyncio.create_task(client.post(f"/v1/runs/{run_id}/cancel"))
        signal = await eventually(lambda: pubsub.get_message(timeout=0.1))

        assert signal["data"] == run_id.encode()
        assert not calling.done()
        await obey_cancel(pool, claimed)
        assert (await calling).json()["state"] == "cancelled"


async def test_cancel_that_no_worker_obeys_answers_after_two_seconds(client: httpx.AsyncClient, pool: Pool) -> None:
    """The call never hangs: it shows the run as it is, and may be repeated."""
    run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
    await claim(pool)
    begun = time.monotonic()

    answers = await asyncio.gather(*(client.post(f"/v1/runs/{run_id}/cancel") for _ in range(3)))

    assert 2 <= time.monotonic() - begun < 4
    assert [(answer_.status_code, answer_.json()["state"]) for answer_ in answers] == [(200, "running")] * 3


async def test_cancel_after_the_end_changes_nothing(client: httpx.AsyncClient, pool: Pool) -> None:
    """Cancelling twice, or what has completed, answers the run as it ended."""
    conversation_id = await make_conversation(client)
    done = (await post_message(client, conversation_id))["run"]["id"]
    await answer(pool)
    stopped = (await post_message(client, conversation_id))["run"]["id"]
    first = (await client.post(f"/v1/runs/{stopped}/cancel")).json()

    assert (await client.post(f"/v1/runs/{stopped}/cancel")).json() == first
    assert (await client.post(f"/v1/runs/{done}/cancel")).json()["state"] == "completed"
