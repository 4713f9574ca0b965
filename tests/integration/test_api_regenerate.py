"""Answering a turn anew, and editing what was said."""

from typing import Any

import httpx
import pytest

from common.ids import new_id
from common.store.database import Pool, workspace_transaction
from common.store.run_messages import select_history
from tests.support.api_client import make_conversation, post_message, refusal_of
from tests.support.hand_worker import answer, claim, commit_step, complete, obey_cancel


async def contents(client: httpx.AsyncClient, conversation_id: str, **params: str) -> list[str]:
    page = await client.get(f"/v1/conversations/{conversation_id}/messages", params=params)
    return [message["content"] for message in page.json()["data"]]


async def regenerate(client: httpx.AsyncClient, message: Any, **body: Any) -> httpx.Response:
    path = f"/v1/conversations/{message['conversationId']}/messages/{message['id']}/regenerate"
    return await client.post(path, json=body)


async def two_turns(client: httpx.AsyncClient, pool: Pool) -> tuple[str, list[Any]]:
    """A conversation `q1 a1 q2 a2` and its messages."""
    conversation_id = await make_conversation(client)
    for i in (1, 2):
        await post_message(client, conversation_id, f"q{i}")
        await answer(pool, f"a{i}")
    return conversation_id, (await client.get(f"/v1/conversations/{conversation_id}")).json()["messages"]


@pytest.mark.parametrize("of", [0, 1], ids=["question", "answer"])
async def test_regenerated_turn_supersedes_its_output_and_all_later_turns(
    client: httpx.AsyncClient, pool: Pool, of: int
) -> None:
    """A new run of the turn; what came after its message is replaced, not deleted."""
    conversation_id, messages = await two_turns(client, pool)

    again = await regenerate(client, messages[of])

    assert again.status_code == 202
    assert again.json()["message"] == messages[0]
    assert again.json()["run"]["triggerMessageId"] == messages[0]["id"]
    assert await contents(client, conversation_id) == ["q1"]
    assert str(await answer(pool, "a1 again")) == again.json()["run"]["id"]
    await post_message(client, conversation_id, "q3")
    assert await contents(client, conversation_id) == ["q1", "a1 again", "q3"]
    assert await contents(client, conversation_id, superseded="true") == ["q1", "a1", "a1 again", "q2", "a2", "q3"]


async def test_regenerate_without_a_body_keeps_the_choices_of_the_message(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    """The message's own model is used again; the request may choose another one."""
    conversation_id = await make_conversation(client)
    message = (await post_message(client, conversation_id, provider="other", model="other-2"))["message"]
    await answer(pool)

    again = (await client.post(f"/v1/conversations/{conversation_id}/messages/{message['id']}/regenerate")).json()
    await answer(pool)
    other = (await regenerate(client, message, provider="echo")).json()

    assert (again["run"]["provider"], again["run"]["model"]) == ("other", "other-2")
    assert (other["run"]["provider"], other["run"]["model"]) == ("echo", "echo")


async def test_message_posted_without_a_run_can_be_run_later(client: httpx.AsyncClient, pool: Pool) -> None:
    """Regenerating a message that has no answer yet gives it one."""
    conversation_id = await make_conversation(client)
    message = (await post_message(client, conversation_id, "q", run=False))["message"]

    assert (await regenerate(client, message)).status_code == 202

    await answer(pool, "a")
    assert await contents(client, conversation_id) == ["q", "a"]


async def test_regenerate_of_a_busy_conversation_is_refused(client: httpx.AsyncClient, pool: Pool) -> None:
    """409 while a run is active, and nothing is superseded; `enqueue` is no choice here."""
    conversation_id, messages = await two_turns(client, pool)
    await post_message(client, conversation_id, "q3")

    assert refusal_of(await regenerate(client, messages[0])) == (409, "conversation_busy")
    assert refusal_of(await regenerate(client, messages[0], ifBusy="enqueue")) == (400, "invalid_request")
    assert await contents(client, conversation_id) == ["q1", "a1", "q2", "a2", "q3"]


async def test_late_writes_of_a_superseded_run_do_not_count(client: httpx.AsyncClient, pool: Pool) -> None:
    """What the old worker still commits is superseded from birth, and the new run's model never reads it."""
    conversation_id = await make_conversation(client)
    message = (await post_message(client, conversation_id, "q"))["message"]
    old = await claim(pool)
    await commit_step(pool, old, "early")

    new = (await regenerate(client, message, ifBusy="interrupt")).json()["run"]
    await commit_step(pool, old, "late", step=2)
    await obey_cancel(pool, old)

    assert new["state"] == "waiting"
    assert await contents(client, conversation_id) == ["q"]
    claimed = await claim(pool)
    assert str(claimed.run_id) == new["id"]
    async with workspace_transaction(pool, claimed.workspace_id) as connection:
        conversation = new["conversationId"]
        history = await select_history(connection, conversation, claimed.run_id, 1, 1000)
        reason = await connection.fetchval("select cancel_reason from runs where id = $1", old.run_id)
    assert [row.content for row in history] == ["q"]
    assert reason == "superseded"


async def test_interrupt_names_why_each_run_was_cancelled(client: httpx.AsyncClient, pool: Pool) -> None:
    """Runs of the turn and of later ones are superseded, an earlier one is interrupted."""
    conversation_id = await make_conversation(client)
    posted = [await post_message(client, conversation_id, str(i), ifBusy="enqueue") for i in range(3)]

    await regenerate(client, posted[1]["message"], ifBusy="interrupt")

    async with workspace_transaction(pool, (await claim(pool)).workspace_id) as connection:
        rows = await connection.fetch("select cancel_reason from runs order by turn, created_at")
    assert [row["cancel_reason"] for row in rows] == ["interrupted", "superseded", None, "superseded"]
    assert await contents(client, conversation_id) == ["0", "1"]


async def test_message_without_a_turn_to_answer_is_refused(client: httpx.AsyncClient, pool: Pool) -> None:
    """A system message, an assistant's that no run wrote, and one of a replaced turn: 400."""
    conversation_id, messages = await two_turns(client, pool)
    for role in ("assistant", "system"):
        message = (await post_message(client, conversation_id, role=role, run=False))["message"]
        assert refusal_of(await regenerate(client, message)) == (400, "invalid_request")
    await regenerate(client, messages[0])
    await answer(pool)

    assert refusal_of(await regenerate(client, messages[2])) == (400, "invalid_request")
    assert refusal_of(await regenerate(client, {**messages[0], "id": str(new_id())})) == (404, "not_found")


async def test_edit_keeps_the_original_and_shows_the_model_the_edit(client: httpx.AsyncClient, pool: Pool) -> None:
    """PUT sets `editedContent` and `editedAt`; the next run reads the edited text."""
    conversation_id, messages = await two_turns(client, pool)

    edited = await client.put(
        f"/v1/conversations/{conversation_id}/messages/{messages[0]['id']}", json={"content": "better"}
    )

    assert edited.status_code == 200
    assert edited.json()["editedAt"].endswith("Z")
    assert edited.json() | {"editedAt": None} == messages[0] | {"editedContent": "better"}
    run = (await post_message(client, conversation_id, "q3"))["run"]
    async with workspace_transaction(pool, (await claim(pool)).workspace_id) as connection:
        history = await select_history(connection, run["conversationId"], run["id"], 3, 1000)
    assert [row.content for row in history] == ["better", "a1", "q2", "a2", "q3"]


async def test_edit_of_what_a_run_may_read_is_refused(client: httpx.AsyncClient, pool: Pool) -> None:
    """At or before the trigger of an active or waiting run: 409; after it, or once all have ended: allowed."""
    conversation_id, messages = await two_turns(client, pool)
    running = (await post_message(client, conversation_id, "q3"))["message"]
    later = (await post_message(client, conversation_id, "note", run=False))["message"]
    claimed = await claim(pool)

    async def edit(message: Any) -> httpx.Response:
        return await client.put(
            f"/v1/conversations/{conversation_id}/messages/{message['id']}", json={"content": "better"}
        )

    for message in (messages[0], messages[3], running):
        assert refusal_of(await edit(message)) == (409, "conversation_busy")
    assert (await edit(later)).status_code == 200

    waiting = (await post_message(client, conversation_id, "q4", ifBusy="enqueue"))["message"]
    assert refusal_of(await edit(later)) == refusal_of(await edit(waiting)) == (409, "conversation_busy")

    await complete(pool, claimed)
    assert refusal_of(await edit(waiting)) == (409, "conversation_busy")
    await answer(pool)
    assert (await edit(waiting)).status_code == 200


async def test_edit_of_an_unknown_message_finds_nothing(client: httpx.AsyncClient) -> None:
    """A message of another conversation is not found in this one."""
    here, there = await make_conversation(client), await make_conversation(client)
    message = (await post_message(client, there, run=False))["message"]

    for message_id in (message["id"], new_id(), "x"):
        edited = await client.put(f"/v1/conversations/{here}/messages/{message_id}", json={"content": "x"})
        assert refusal_of(edited) == (404, "not_found")
