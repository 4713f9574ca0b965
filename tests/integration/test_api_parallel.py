"""Everything at once on one conversation: it stays in order, and nothing is ever stuck."""

import asyncio
import random
from itertools import pairwise

import httpx

from common.store.database import Pool, workspace_transaction
from common.store.run_schedule import Claim, claim_runs
from tests.support.api_client import make_conversation, post_message
from tests.support.hand_worker import LEASE_S, commit_step, complete, obey_cancel


async def test_parallel_requests_keep_a_conversation_in_order(client: httpx.AsyncClient, pool: Pool) -> None:
    """Posts, edits, regenerates and cancels in parallel with a worker: no deadlock, no 5xx, never two active runs,
    and every run ends once."""
    conversation_id = await make_conversation(client)
    path = f"/v1/conversations/{conversation_id}"
    messages = [(await post_message(client, conversation_id, str(i), run=False))["message"]["id"] for i in range(3)]
    dice = random.Random(7)
    stop = asyncio.Event()
    working = asyncio.create_task(_work(pool, stop))

    async def act() -> int:
        match dice.choice(["post", "enqueue", "interrupt", "edit", "regenerate", "cancel"]):
            case "post":
                answer = await client.post(f"{path}/messages", json={"content": "x"})
            case "enqueue" | "interrupt" as mode:
                answer = await client.post(f"{path}/messages", json={"content": "x", "ifBusy": mode})
            case "edit":
                answer = await client.put(f"{path}/messages/{dice.choice(messages)}", json={"content": "y"})
            case "regenerate":
                body = {"ifBusy": dice.choice(["reject", "interrupt"])}
                answer = await client.post(f"{path}/messages/{messages[0]}/regenerate", json=body)
            case _:
                runs = (await client.get("/v1/runs", params={"limit": 3})).json()["data"]
                if not runs:
                    return 200
                answer = await client.post(f"/v1/runs/{dice.choice(runs)['id']}/cancel")
        return answer.status_code

    for _ in range(5):
        statuses = await asyncio.gather(*(act() for _ in range(16)))
        assert set(statuses) <= {200, 202, 400, 409}, statuses

    async with asyncio.timeout(20):
        while (await client.get(path)).json()["activeRun"] is not None:
            await asyncio.sleep(0.02)
    stop.set()
    claims = await working

    async with workspace_transaction(pool, claims[0].workspace_id) as connection:
        rows = await connection.fetch("select * from runs order by started_at nulls last")
    assert {row["state"] for row in rows} <= {"completed", "cancelled"}
    started = [row for row in rows if row["started_at"] is not None]
    assert len(started) == len(claims)
    assert all(before["finished_at"] <= after["started_at"] for before, after in pairwise(started))


async def _work(pool: Pool, stop: asyncio.Event) -> list[Claim]:
    """Runs whatever is due, obeying cancels, until told to stop; what it claimed."""
    claims: list[Claim] = []
    while not stop.is_set():
        due = await claim_runs(pool, "by hand", LEASE_S, 10)
        claims += due
        for claimed in due:
            await commit_step(pool, claimed, "answer")
            async with workspace_transaction(pool, claimed.workspace_id) as connection:
                cancelled = await connection.fetchval(
                    "select cancel_requested_at is not null from runs where id = $1", claimed.run_id
                )
            await (obey_cancel if cancelled else complete)(pool, claimed)
        await asyncio.sleep(0.005)
    return claims
