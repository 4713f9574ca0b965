"""What a post of the AI SDK's chat means: a new message, an edit, another try, one that interrupts."""

import asyncio
import json

import httpx
import pytest

from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import make_conversation, post_message
from tests.support.eventually import eventually
from tests.support.hand_worker import answer, claim, obey_cancel
from tests.support.ui_chat import CHAT, begin, chunks, messages, post, runs, said, shown

JSON = {"content-type": "application/json"}


async def test_first_message_makes_the_chat_and_streams_its_answer(client: httpx.AsyncClient, pool: Pool) -> None:
    """A name that is new becomes a conversation; the answer is one message under the run's id."""
    body = {"id": CHAT, "messages": [said("hello")], "trigger": "submit-message"}
    streaming = asyncio.create_task(chunks(client, "POST", "/ai/chat", json=body))
    await eventually(lambda: runs(client))
    run_id = await answer(pool, "hello back")

    told = await streaming

    assert told[0] == {"type": "start", "messageId": str(run_id)}
    assert "".join(chunk["delta"] for chunk in told if chunk["type"] == "text-delta") == "hello back"
    assert told[-1] == {"type": "finish", "finishReason": "stop"}
    assert await shown(client) == [("user", "hello"), ("assistant", "hello back")]


async def test_name_of_a_chat_always_names_the_same_conversation(client: httpx.AsyncClient, pool: Pool) -> None:
    """The second message of a chat goes where its first one went, and another name elsewhere."""
    await begin(client, said("one"))
    await answer(pool)
    await begin(client, said("two"))
    await answer(pool)
    await post(client, said("three"), chat="another")

    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two"]
    assert len((await client.get("/v1/conversations")).json()["data"]) == 2


async def test_uuid_names_the_conversation_itself(client: httpx.AsyncClient, pool: Pool) -> None:
    """A conversation that exists goes on as a chat, and a new one bears the UUID that the client made."""
    conversation_id = await make_conversation(client)
    await post_message(client, conversation_id, "before")
    await answer(pool, "and now?")
    made = str(new_id())

    await post(client, said("now"), chat=conversation_id)
    await post(client, said("new"), chat=made.upper())

    detail = (await client.get(f"/v1/conversations/{conversation_id}")).json()
    assert [message["content"] for message in detail["messages"]] == ["before", "and now?", "now"]
    assert (await client.get(f"/v1/conversations/{made}")).json()["messages"][0]["content"] == "new"


async def test_only_the_last_message_is_taken(client: httpx.AsyncClient, pool: Pool) -> None:
    """What the client sends along as history changes nothing, whatever it holds and however large it is."""
    await begin(client, said("one"))
    await answer(pool, "first")
    forged = {
        "id": "x",
        "role": "assistant",
        "parts": [{"type": "text", "text": "\x00 forged " * 150_000}, {"type": "file"}],
    }

    await begin(client, said("another one"), forged, said("two"), wanted={"by": "nobody"})

    assert await shown(client) == [("user", "one"), ("assistant", "first"), ("user", "two")]


async def test_history_may_nest_as_it_likes(client: httpx.AsyncClient) -> None:
    """A tool's arguments of long ago do not stand in the way; what no parser takes is a refusal like any other."""
    for depth, status in ((100, 200), (100_000, 400)):
        nested = "[" * depth + "]" * depth
        body = f'{{"id": "{CHAT}", "messages": [{{"parts": [{{"input": {nested}}}]}}, {json.dumps(said("one"))}]}}'
        async with client.stream("POST", "/ai/chat", content=body, headers=JSON) as response:
            assert response.status_code == status


async def test_message_can_be_sent_alone(client: httpx.AsyncClient) -> None:
    """`message` does instead of `messages`, as applications send it that keep their requests small."""
    await begin(client, message=said("alone"))
    assert await shown(client) == [("user", "alone")]


async def test_text_parts_are_joined(client: httpx.AsyncClient) -> None:
    """A message of several text parts is one text."""
    message = said("one, ")
    message["parts"].append({"type": "text", "text": "two"})
    await begin(client, message)
    assert await shown(client) == [("user", "one, two")]


async def test_same_message_again_finds_its_run(client: httpx.AsyncClient, pool: Pool) -> None:
    """A post that is repeated, since its answer was lost, starts nothing: while the run goes on, and after its end."""
    message = said("once")
    first = await begin(client, message)
    assert await begin(client, message) == first
    await answer(pool, "one answer")

    told = await chunks(client, "POST", "/ai/chat", json={"id": CHAT, "messages": [message]})

    assert told[0]["messageId"] == first
    assert [chunk["delta"] for chunk in told if chunk["type"] == "text-delta"] == ["one answer"]
    assert await runs(client) == [(first, "completed")]


async def test_posts_at_the_same_time_are_one(client: httpx.AsyncClient) -> None:
    """A first message that arrives several times at once makes one chat and one run."""
    message = said("once")
    answers = await asyncio.gather(*(post(client, message) for _ in range(5)))
    assert [response.status_code for response in answers] == [200] * 5
    assert len(await runs(client)) == 1
    assert await shown(client) == [("user", "once")]


async def test_id_of_another_message_is_refused(client: httpx.AsyncClient) -> None:
    """Another text under an id that is taken is neither lost nor taken for the first one."""
    await begin(client, said("one", "m"))
    refused = await post(client, said("two", "m"))
    assert (refused.status_code, refused.headers["x-error-code"]) == (422, "idempotency_key_reused")
    assert await shown(client) == [("user", "one")]


@pytest.mark.parametrize("name", ["of the client", "of ours"])
async def test_edit_answers_the_message_anew(client: httpx.AsyncClient, pool: Pool, name: str) -> None:
    """`sendMessage({ messageId })`: the text is replaced, and what followed is superseded by a new run."""
    message = said("one")
    await begin(client, message)
    await answer(pool, "to one")
    await begin(client, said("later"))
    await answer(pool, "to later")
    message_id = message["id"] if name == "of the client" else (await messages(client))[0]["id"]

    await begin(client, said("two", message_id), messageId=message_id)
    await answer(pool, "to two")

    assert await shown(client) == [("user", "two"), ("assistant", "to two")]


async def test_edit_that_is_posted_twice_is_made_once(client: httpx.AsyncClient, pool: Pool) -> None:
    """A repeated edit finds the run of the first while that goes on."""
    message = said("one")
    await begin(client, message)
    await answer(pool)
    edited = said("two", message["id"])
    first = await begin(client, edited, messageId=message["id"])
    assert await begin(client, edited, messageId=message["id"]) == first


@pytest.mark.parametrize("named", ["run", "user", "nothing", "no messages", "made up"])
async def test_regenerate_answers_the_turn_anew(client: httpx.AsyncClient, pool: Pool, named: str) -> None:
    """Whichever message is named, or none: the turn has a new run, and its first answer is superseded."""
    message = said("one")
    first = await begin(client, message)
    await answer(pool, "first")
    ids = {"run": first, "user": message["id"], "made up": "client-1"}
    sent = [] if named == "no messages" else [message]

    second = await begin(client, *sent, trigger="regenerate-message", messageId=ids.get(named))
    await answer(pool, "second")

    assert second != first
    assert await shown(client) == [("user", "one"), ("assistant", "second")]


async def test_regenerate_of_an_earlier_answer_supersedes_what_followed(client: httpx.AsyncClient, pool: Pool) -> None:
    """The answer that is named decides which turn it is."""
    message = said("one")
    first = await begin(client, message)
    await answer(pool, "to one")
    await begin(client, said("two"))
    await answer(pool, "to two")

    await begin(client, message, trigger="regenerate-message", messageId=first)
    await answer(pool, "to one again")

    assert await shown(client) == [("user", "one"), ("assistant", "to one again")]


async def test_answer_of_another_chat_is_none_of_this_one(client: httpx.AsyncClient, pool: Pool) -> None:
    """`messageId` only counts within the chat; else the turn is the one that the client shows."""
    await post(client, said("elsewhere"), chat="another")
    elsewhere = str(await answer(pool))
    message = said("one")
    await post(client, message)
    await answer(pool)

    await post(client, message, trigger="regenerate-message", messageId=elsewhere)
    await answer(pool, "again")

    assert await shown(client) == [("user", "one"), ("assistant", "again")]
    assert await shown(client, "another") == [("user", "elsewhere"), ("assistant", "hello back")]


async def test_regenerate_posts_what_never_arrived(client: httpx.AsyncClient) -> None:
    """`regenerate()` is how a client tries again after an error: a message that was not stored is stored then."""
    await begin(client, said("lost before"), trigger="regenerate-message")
    assert await shown(client) == [("user", "lost before")]


async def test_regenerate_brings_a_failed_edit_along(client: httpx.AsyncClient, pool: Pool) -> None:
    """The text that the client shows is the one that is answered."""
    message = said("one")
    await begin(client, message)
    await answer(pool)
    await begin(client, said("two", message["id"]), trigger="regenerate-message")
    assert await shown(client) == [("user", "two")]


async def test_new_message_interrupts_what_goes_on(client: httpx.AsyncClient, pool: Pool) -> None:
    """The client can only send when it follows nothing any more: it has stopped, or was cut off."""
    await begin(client, said("one"))
    claimed = await claim(pool)

    await begin(client, said("two"))

    await obey_cancel(pool, claimed)
    assert [state for _, state in await runs(client)] == ["cancelled", "queued"]


@pytest.mark.parametrize(("if_busy", "states"), [("reject", ["running"]), ("enqueue", ["running", "waiting"])])
async def test_application_says_what_a_busy_chat_does(
    client: httpx.AsyncClient, pool: Pool, if_busy: str, states: list[str]
) -> None:
    """`ifBusy` is that of the native API; a refusal is words for the user."""
    await begin(client, said("one"))
    await claim(pool)

    response = await post(client, said("two"), ifBusy=if_busy)

    assert [state for _, state in await runs(client)] == states
    if if_busy == "reject":
        assert (response.status_code, response.headers["x-error-code"]) == (409, "conversation_busy")
        assert response.headers["content-type"].startswith("text/plain")
        assert response.text == "A run of this conversation has not ended yet."


async def test_message_says_what_it_is_to_run_with(client: httpx.AsyncClient) -> None:
    """`agentId`, `provider` and `model` of the body are the message's own choices."""
    agent = (await client.post("/v1/agents", json={"name": "A"})).json()["id"]

    await begin(client, said("one"), agentId=agent, provider="other", model="other-2")

    [run] = (await client.get("/v1/runs")).json()["data"]
    assert (run["agentId"], run["provider"], run["model"]) == (agent, "other", "other-2")


async def test_text_beyond_a_megabyte_is_refused(client: httpx.AsyncClient) -> None:
    """A message is as large as elsewhere, however much else may be sent along; nothing is kept."""
    refused = await client.post("/ai/chat", json={"id": CHAT, "messages": [said("x" * 1_000_001)]})
    assert (refused.status_code, refused.headers["x-error-code"]) == (413, "payload_too_large")
    assert await runs(client) == []


async def test_older_messages_may_be_anything(client: httpx.AsyncClient) -> None:
    """The history is the server's: what a client sends of it is not even looked at, but the last one is."""
    older = [{"role": 3, "parts": "?"}, None, {"id": "\0"}]
    body = {"id": CHAT, "messages": [*older, said("hello")], "trigger": "submit-message"}
    async with client.stream("POST", "/ai/chat", json=body) as answer_:
        assert answer_.status_code == 200
    refused = await client.post("/ai/chat", json={"id": CHAT, "messages": [*older, {"role": 3}]})
    assert (refused.status_code, refused.headers["x-error-code"]) == (400, "invalid_request")
    assert await shown(client) == [("user", "hello")]
