"""The AI SDK's own packages against the whole system: `Chat`, which `useChat` is made of."""

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from common.ids import new_id
from tests.clients.ai_sdk_pages import chat, documented_page, kinds_of, page_with, text_of
from tests.support.chaos import QUICK
from tests.support.model_script import Reply
from tests.support.planned_model import plan
from tests.support.processes import RunningProcess
from tests.support.system import Client, System, running_system
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
VERSIONS = ("ai_sdk_6", "ai_sdk_7")
since_5 = pytest.mark.parametrize("version", ["ai_sdk_5", *VERSIONS], indirect=True)
"""For what the oldest version is to do as well. It cannot resume after a break: it doubles what it has."""


class Running:
    """What the module shares: a system with one worker, and an API for pages of another origin."""

    def __init__(self, system: System, api: RunningProcess) -> None:
        self.system = system
        self.api = api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    async with running_system(forked=True) as system:
        api = await system.api(CORS_ORIGINS="https://app.example")
        await system.worker(**QUICK)
        yield Running(system, api)


@pytest_asyncio.fixture(loop_scope="module")
async def someone(running: Running) -> Client:
    """A member of a workspace of their own."""
    return await running.system.client(running.api)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """The package's major version, as the folder that pins it."""
    return str(request.param)


async def stored(client: Client, chat_id: str) -> list[Any]:
    """The chat's messages, as a page that is loaded now gets them."""
    answer = await client.http.get(f"/ai/chat/{chat_id}/messages")
    assert answer.status_code == 200, answer.text
    return list(answer.json())


async def last_run(client: Client, chat_id: str) -> dict[str, Any]:
    return dict((await client.http.get(f"/v1/conversations/{chat_id}")).json()["lastRun"])


def bare(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message by what a user sees of them."""
    seen = ("type", "text", "toolName", "toolCallId", "state", "input", "output", "errorText")
    return [{name: part[name] for name in seen if name in part} for part in message["parts"]]


@since_5
async def test_answer_is_streamed_into_one_message(version: str, someone: Client) -> None:
    """The message grows word by word, and is then what a reload shows, under the same id."""
    chat_id = str(new_id())
    async with chat(version, someone, chat_id, model=plan(words=20, pause_ms=10)) as page:
        page.begin("send", text="hello")
        partial = await page.shows(3)
        after = await page.script.next("send")

    [question, answer] = after["messages"]
    assert (after["status"], after["error"]) == ("ready", None)
    assert len(partial.split()) < 20
    assert len(text_of(answer).split()) == 20
    [stored_question, stored_answer] = await stored(someone, chat_id)
    assert text_of(stored_question) == text_of(question) == "hello"
    assert (stored_answer["id"], bare(stored_answer)) == (answer["id"], bare(answer))


@since_5
async def test_tools_are_shown_and_not_run_by_the_page(version: str, someone: Client) -> None:
    """Each call appears with what it was called with and what it gave; `onToolCall` is not asked."""
    chat_id = str(new_id())
    async with chat(version, someone, chat_id, model=plan(steps=2, tools="look,store", words=3)) as page:
        after = await page.do("send", text="look")

    answer = after["messages"][1]
    step = ["step-start", "text", "dynamic-tool", "dynamic-tool"]
    assert kinds_of(answer) == [*step, *step, "step-start", "text"]
    calls = [part for part in answer["parts"] if part["type"] == "dynamic-tool"]
    assert [call["toolName"] for call in calls] == ["look", "store"] * 2
    for call in calls:
        assert call["state"] == "output-available"
        assert call["output"] == f"{call['toolName']} {call['input']['what']}"
    assert not [line for line in page.script.seen if line["event"] == "toolCall"]
    assert bare((await stored(someone, chat_id))[1]) == bare(answer)


async def test_failed_tool_is_shown_as_such(version: str, running: Running, someone: Client) -> None:
    """The call's part has the error's text, and the answer goes on."""
    async with chat(version, someone, model=plan(steps=1, tools="missing", words=2)) as page:
        after = await page.do("send", text="look")

    [call] = [part for part in after["messages"][1]["parts"] if part["type"] == "dynamic-tool"]
    assert call["state"] == "output-error"
    assert "missing" in call["errorText"]
    assert kinds_of(after["messages"][1])[-1] == "text"


async def test_reasoning_is_a_part_of_its_own(version: str, running: Running, someone: Client) -> None:
    """The model's visible reasoning comes before its text, live and after a reload."""
    chat_id, model = str(new_id()), f"thinker-{version}"
    running.system.models.script(Reply(reasoning="let me think", text="forty two"), model=model)
    async with chat(version, someone, chat_id, model=model) as page:
        after = await page.do("send", text="what is it?")

    answer = after["messages"][1]
    assert [(part["type"], part.get("text")) for part in answer["parts"]] == [
        ("step-start", None),
        ("reasoning", "let me think"),
        ("text", "forty two"),
    ]
    assert bare((await stored(someone, chat_id))[1]) == bare(answer)


async def test_stop_ends_the_run_and_keeps_the_text(version: str, someone: Client) -> None:
    """With `POST …/stop` the page's stream ends by itself; what it shows is there after a reload."""
    chat_id = str(new_id())
    async with chat(version, someone, chat_id, model=plan(words=500, pause_ms=20)) as page:
        page.begin("send", text="count")
        await page.shows(5)
        page.begin("cancel")
        after = await page.script.next("send")

    assert after["status"] == "ready"
    assert (await last_run(someone, chat_id))["state"] == "cancelled"
    assert 5 <= len(text_of(after["messages"][1]).split()) < 500
    assert bare((await stored(someone, chat_id))[1]) == bare(after["messages"][1])


async def test_message_after_a_local_stop_is_answered(version: str, someone: Client) -> None:
    """`stop()` alone only stops listening; the next message takes over from the run that goes on."""
    chat_id = str(new_id())
    async with chat(version, someone, chat_id, model=plan(words=500, pause_ms=20)) as page:
        page.begin("send", text="count")
        await page.shows(5)
        await page.do("stop")
        page.begin("send", text="something else")
        await page.shows(3)
        first, second = (await someone.http.get(f"/v1/runs?conversationId={chat_id}")).json()["data"][::-1]
        await page.do("cancel")

    assert (first["state"], second["state"]) == ("cancelled", "running")


async def test_regenerate_replaces_the_answer(version: str, someone: Client) -> None:
    """The old answer goes, the new one is another message, and a reload shows the same."""
    chat_id = str(new_id())
    async with chat(version, someone, chat_id, model=plan(words=3)) as page:
        first = (await page.do("send", text="one"))["messages"]
        again = (await page.do("regenerate"))["messages"]
        await page.do("send", text="two")
        by_id = (await page.do("regenerate", messageId=again[1]["id"]))["messages"]

    assert [message["role"] for message in again] == [message["role"] for message in by_id] == ["user", "assistant"]
    assert len({messages[1]["id"] for messages in (first, again, by_id)}) == 3
    assert [text_of(message) for message in await stored(someone, chat_id)] == [text_of(message) for message in by_id]


@since_5
async def test_edited_message_is_answered_anew(version: str, someone: Client) -> None:
    """`sendMessage({ text, messageId })`: the chat goes on from the new text."""
    chat_id = str(new_id())
    async with chat(version, someone, chat_id, provider="echo", model="echo") as page:
        question = (await page.do("send", text="one"))["messages"][0]
        await page.do("send", text="later")
        after = await page.do("send", text="two", messageId=question["id"])

    assert after["error"] is None
    assert [message["role"] for message in after["messages"]] == ["user", "assistant"]
    assert "two" in text_of(after["messages"][1])
    assert [text_of(message) for message in await stored(someone, chat_id)] == [
        text_of(message) for message in after["messages"]
    ]


@pytest.mark.parametrize("mode", [Mode.RESET, Mode.DROP])
async def test_network_that_breaks_costs_no_text_and_doubles_none(version: str, someone: Client, mode: Mode) -> None:
    """After `resumeStream()` the message is whole, live and after a reload, with one part for each text."""
    chat_id = str(new_id())
    model = plan(steps=1, words=40, pause_ms=10)
    async with TcpProxy(someone.url) as proxy, chat(version, someone, chat_id, url=proxy.url, model=model) as page:
        page.begin("send", text="count")
        await page.shows(60)
        proxy.switch(mode, new=False)
        broken = await page.script.next("send")
        after = await page.do("resume")

    assert (broken["status"], broken["error"]) == ("error", "network error")
    assert (after["status"], after["error"]) == ("ready", None)
    assert kinds_of(after["messages"][1]) == ["step-start", "text", "dynamic-tool", "step-start", "text"]
    assert [message["id"] for message in after["messages"]][1] == (await last_run(someone, chat_id))["id"]
    assert bare((await stored(someone, chat_id))[1]) == bare(after["messages"][1])
    assert len(text_of(after["messages"][1]).split()) == 79


async def test_answer_that_ended_meanwhile_is_told_in_full(version: str, someone: Client) -> None:
    """A page that was cut off comes back after the run's end, and gets what it missed."""
    chat_id = str(new_id())
    model = plan(words=30, pause_ms=10)
    async with TcpProxy(someone.url) as proxy, chat(version, someone, chat_id, url=proxy.url, model=model) as page:
        page.begin("send", text="count")
        await page.shows(5)
        proxy.switch(Mode.RESET, new=False)
        await page.script.next("send")
        await someone.state_is(await last_run(someone, chat_id), "completed")
        after = await page.do("resume")

    assert len(text_of(after["messages"][1]).split()) == 30
    assert len(after["messages"]) == 2


@since_5
async def test_reload_in_mid_answer_shows_it_once(version: str, someone: Client) -> None:
    """A second page begins with the stored messages and resumes: the answer is there once, and grows to its end."""
    chat_id, model = str(new_id()), plan(words=60, pause_ms=20)
    async with chat(version, someone, chat_id, model=model) as page:
        page.begin("send", text="count")
        await page.shows(5)
        async with chat(version, someone, chat_id, load=True) as second:
            resumed = await second.do("resume")
        first = await page.script.next("send")

    assert [message["role"] for message in resumed["messages"]] == ["user", "assistant"]
    assert len(text_of(resumed["messages"][1]).split()) == 60
    assert bare(resumed["messages"][1]) == bare(first["messages"][1])


async def test_nothing_to_resume_leaves_the_chat_ready(version: str, someone: Client) -> None:
    """In a new chat `resumeStream()` changes nothing, and is no error."""
    async with chat(version, someone) as page:
        after = await page.do("resume")
    assert (after["status"], after["error"], after["messages"]) == ("ready", None, [])


async def test_stored_messages_begin_a_chat_that_goes_on(version: str, someone: Client) -> None:
    """They pass the package's own validation, and the next message, the edit and the regeneration find their turn."""
    chat_id, model = str(new_id()), plan(steps=1, words=3)
    async with chat(version, someone, chat_id, model=model) as page:
        await page.do("send", text="one")
    async with chat(version, someone, chat_id, load=True, model=model) as page:
        four = (await page.do("send", text="two"))["messages"]
        again = await page.do("regenerate", messageId=four[1]["id"])
    async with chat(version, someone, chat_id, load=True, model=model) as page:
        edited = await page.do("send", text="three", messageId=again["messages"][0]["id"])

    assert [message["role"] for message in four] == ["user", "assistant"] * 2
    assert (again["error"], len(again["messages"])) == (None, 2)
    assert edited["error"] is None
    assert text_of(edited["messages"][0]) == "three"
    assert [message["role"] for message in edited["messages"]] == ["user", "assistant"]


async def test_failed_run_is_an_error_with_its_words(version: str, running: Running, someone: Client) -> None:
    """The chat is in state `error` with the run's message; `regenerate()` tries again."""
    model = f"refusing-{version}"
    replies = Reply(status=400, body={"error": {"message": "no"}}), Reply(text="fine now")
    running.system.models.script(*replies, model=model)
    async with chat(version, someone, model=model) as page:
        failed = await page.do("send", text="one")
        again = await page.do("regenerate")

    assert failed["status"] == "error"
    assert failed["error"]
    assert (again["status"], text_of(again["messages"][1])) == ("ready", "fine now")


@since_5
async def test_refusal_is_an_error_in_words(version: str, someone: Client) -> None:
    """What the server says to a request that it refuses is what the user reads."""
    async with chat(version, someone, provider="nobody") as page:
        refused = await page.do("send", text="one")
    assert refused["status"] == "error"
    assert refused["error"] == "provider: there is no 'nobody'; GET /v1/models lists what there is"


async def test_page_of_another_origin_may_send_what_the_package_sends(version: str, someone: Client) -> None:
    """Every header of its requests is one that the preflight allows."""
    async with chat(version, someone, model=plan(words=1)) as page:
        await page.do("send", text="one")
        await page.do("resume")

    posted, resumed = page.requests()
    assert (posted["method"], resumed["method"]) == ("POST", "GET")
    for request in (posted, resumed):
        asked = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": request["method"],
            "Access-Control-Request-Headers": ",".join(request["headers"]),
        }
        preflight = await someone.http.options(request["url"], headers=asked)
        assert preflight.status_code == 204
        assert set(request["headers"]) <= set(preflight.headers["access-control-allow-headers"].lower().split(", "))


@since_5
async def test_killed_worker_costs_no_text(version: str) -> None:
    """The run goes on in another worker. Version 7 replaces what is told again; the others show the broken part before
    it, until the page is loaded anew."""
    chat_id = str(new_id())
    async with running_system(forked=True) as system:
        api, first = await system.api(), await system.worker(**QUICK)
        someone = await system.client(api)
        async with chat(version, someone, chat_id, model=plan(steps=1, words=40, pause_ms=20)) as page:
            page.begin("send", text="count")
            await page.shows(60)
            await first.stop(signal.SIGKILL)
            await system.worker(**QUICK)
            after = await page.script.next("send", 60)
        reloaded = (await stored(someone, chat_id))[1]

    answer = after["messages"][1]
    assert (after["status"], answer["id"]) == ("ready", reloaded["id"])
    texts = [part["text"] for part in answer["parts"] if part["type"] == "text"]
    first_step, last_step = (part["text"] for part in reloaded["parts"] if part["type"] == "text")
    if version == "ai_sdk_7":
        assert texts == [first_step, last_step]
        assert bare(answer) == bare(reloaded)
    else:
        assert (texts[0], texts[-1], len(texts)) == (first_step, last_step, 3)


async def test_documented_page_answers_stops_and_survives_a_reload(someone: Client) -> None:
    """The page of the documentation, as it stands there: a message, a reload in the middle of its answer, a stop, and
    what both pages and another reload show then."""
    chat_id, question = str(new_id()), " ".join(f"a{number}" for number in range(30))
    async with documented_page(someone, chat_id) as page:
        await page_with(page, "Send")
        page.tell({"do": "write", "text": question})
        page.tell({"do": "send"})
        await page_with(page, "agent: a0 a1")
        async with documented_page(someone, chat_id) as second:
            grown = await page_with(second, "agent: a0 a1 a2 a3")
            second.tell({"do": "press", "label": "Stop"})
            stopped = await page_with(second, "Send")
        ended = await page_with(page, "Send")
    async with documented_page(someone, chat_id) as reloaded:
        shown = await page_with(reloaded, "Send")

    assert grown.count(question) == grown.count("agent:") == 1
    assert grown.endswith("Stop")
    assert stopped == ended == shown
