"""The web page when something breaks off: nothing is lost, nothing comes twice."""

import asyncio
import re

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.e2e.conftest import Running
from tests.support.browser import Visitor, visitor
from tests.support.eventually import eventually
from tests.support.system import Client
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MODEL = {"provider": "echo", "model": "echo?delayMs=100&repeat=3"}
_QUESTION = "one two three four five"
_WHOLE = " ".join([f"Echo from agent: {_QUESTION}"] * 3)


async def _begin(visit: Visitor, someone: Client) -> str:
    """The id of a conversation in whose slow answer the page is."""
    conversation = await someone.conversation(**_MODEL)
    await visit.open(conversation)
    await visit.say(_QUESTION)
    await expect(visit.answer()).to_contain_text("Echo from agent: one two")
    return conversation


async def _is_whole(page: Page) -> None:
    await expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    await expect(page.locator(".answer .markdown")).to_have_text(_WHOLE)


async def test_page_that_is_reloaded_in_mid_answer_goes_on(visit: Visitor, someone: Client) -> None:
    """The text is there again at once, grows, and is whole at the end."""
    await _begin(visit, someone)

    await visit.page.reload()

    await expect(visit.page.get_by_role("button", name="Stop")).to_be_visible()
    await expect(visit.answer()).to_contain_text("Echo from agent: one two")
    await _is_whole(visit.page)


async def test_two_tabs_show_one_run(visit: Visitor, someone: Client) -> None:
    """A second tab joins in mid-answer; both end with the same, and either may stop it."""
    conversation = await _begin(visit, someone)

    second = await visit.tab(f"/#/{conversation}")

    await expect(second.locator(".answer")).to_contain_text("Echo from agent: one two")
    await _is_whole(visit.page)
    await _is_whole(second)


async def test_message_of_one_tab_appears_in_the_other(visit: Visitor, someone: Client) -> None:
    """A tab that only shows the conversation gets what another one starts."""
    conversation = await someone.conversation(provider="echo", model="echo")
    await visit.open(conversation)
    second = await visit.tab(f"/#/{conversation}")
    await expect(second.get_by_role("heading", level=1)).to_have_text("Untitled")

    await visit.say("hello over there")

    await expect(second.locator(".answer")).to_contain_text("Echo from agent: hello over there")


async def test_page_that_was_offline_has_the_answer_when_it_is_back(visit: Visitor, someone: Client) -> None:
    """It says so meanwhile; afterwards it goes on after the last id it saw, and the answer is whole."""
    await _begin(visit, someone)
    streams: list[str] = []
    visit.page.on("request", lambda request: streams.append(request.url) if "/stream?" in request.url else None)

    await visit.context.set_offline(True)
    await expect(visit.page.get_by_role("status").first).to_contain_text("You are offline")
    await visit.context.set_offline(False)

    await expect(visit.page.get_by_text("You are offline")).to_have_count(0)
    await _is_whole(visit.page)
    assert re.search(r"[?&]after=1-\d+$", streams[-1]), streams


@pytest.mark.parametrize("mode", [Mode.RESET, Mode.DROP])
async def test_page_whose_cable_is_pulled_goes_on_by_itself(
    browser: Browser, running: Running, someone: Client, mode: Mode
) -> None:
    """A broken connection is said and opened again; no word is missing and none comes twice."""
    port = int(running.api.url.rpartition(":")[2])
    token = someone.headers["authorization"].removeprefix("Bearer ")
    async with TcpProxy(("127.0.0.1", port)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with visitor(browser, url, token) as visit:
            await _begin(visit, someone)
            proxy.switch(mode)
            await expect(visit.page.get_by_role("status").first).to_contain_text("The connection is lost")
            proxy.switch(Mode.PASS)
            await _is_whole(visit.page)
            await expect(visit.page.get_by_text("The connection is lost")).to_have_count(0)


async def test_message_that_cannot_be_sent_stays_in_its_field(
    browser: Browser, running: Running, someone: Client
) -> None:
    """Nothing that was written is lost: the page says so, and it can be sent once the server is back."""
    port = int(running.api.url.rpartition(":")[2])
    token = someone.headers["authorization"].removeprefix("Bearer ")
    conversation = await someone.conversation(provider="echo", model="echo")
    async with TcpProxy(("127.0.0.1", port)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with visitor(browser, url, token) as visit:
            await visit.open(conversation)
            proxy.switch(Mode.DROP)
            await visit.say("keep this")
            await expect(visit.page.get_by_role("status").first).to_contain_text("connection is lost")
            field = visit.page.get_by_role("textbox", name="Message")
            await expect(field).to_have_value("keep this")
            await expect(field).to_be_editable()
            proxy.switch(Mode.PASS)
            await expect(visit.page.get_by_text("connection is lost")).to_have_count(0)
            await field.press("Enter")
            await expect(visit.answer()).to_contain_text("Echo from agent: keep this")
    assert len((await someone.http.get(f"/v1/conversations/{conversation}")).json()["messages"]) == 2


@pytest.mark.slow
async def test_page_whose_connection_falls_silent_opens_another(
    browser: Browser, running: Running, someone: Client
) -> None:
    """A connection that died without a word looks like a run that is thinking: after 45 seconds a new one is opened."""
    port = int(running.api.url.rpartition(":")[2])
    token = someone.headers["authorization"].removeprefix("Bearer ")
    conversation = await someone.conversation(**_MODEL)
    async with TcpProxy(("127.0.0.1", port)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with visitor(browser, url, token) as visit:
            await visit.page.clock.install()
            await visit.open(conversation)
            await visit.say(_QUESTION)
            await expect(visit.answer()).to_contain_text("Echo from agent: one two")
            proxy.switch(Mode.BLACK_HOLE)
            await eventually(lambda: _ended(someone, conversation), 30)
            proxy.switch(Mode.PASS)
            await expect(visit.page.locator(".answer .markdown")).not_to_have_text(_WHOLE)
            await visit.page.clock.fast_forward(46_000)
            # The browser asks for its new ticket on the dead connection first, which the page gives 5 s.
            await visit.page.get_by_role("button", name="Answer again").wait_for(timeout=30_000)
            await _is_whole(visit.page)


async def _ended(someone: Client, conversation: str) -> bool:
    return (await someone.http.get(f"/v1/conversations/{conversation}")).json()["activeRun"] is None


async def test_page_that_looks_again_while_a_message_is_sent_shows_it_once(visit: Visitor, someone: Client) -> None:
    """The answer to the POST may come after the message has been read from the conversation."""
    conversation = await someone.conversation(**_MODEL)
    await visit.open(conversation)
    arrived = asyncio.Event()

    async def late(route: Route) -> None:
        answer = await route.fetch()
        arrived.set()
        await asyncio.sleep(1)
        await route.fulfill(response=answer)

    await visit.page.route("**/messages", late)
    await visit.say(_QUESTION)
    await arrived.wait()
    await visit.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    await expect(visit.answer()).to_contain_text("Echo from agent: one two three")
    await expect(visit.page.get_by_role("textbox", name="Message")).to_have_value("")
    await expect(visit.page.locator(".bubble")).to_have_count(1)
    await _is_whole(visit.page)


async def test_who_goes_elsewhere_while_a_conversation_is_made_stays_there(visit: Visitor, someone: Client) -> None:
    """The message goes to the new conversation all the same, and the page is ready in the other one."""
    other = await someone.conversation(title="elsewhere", provider="echo", model="echo")
    asked = asyncio.Event()

    async def late(route: Route) -> None:
        if route.request.method == "POST":
            asked.set()
            await asyncio.sleep(1)
        await route.continue_()

    await visit.page.route("**/v1/conversations", late)
    await visit.say("to a new one")
    await asked.wait()
    await visit.page.evaluate(f"location.hash = '#/{other}'")
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("elsewhere")
    await expect(visit.page.get_by_role("navigation").get_by_text("to a new one")).to_be_visible()

    field = visit.page.get_by_role("textbox", name="Message")
    await expect(field).to_have_value("")
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("elsewhere")
    await visit.say("to this one")
    await expect(visit.answer()).to_contain_text("Echo from agent: to this one")
    assert (await someone.http.get(f"/v1/conversations/{other}")).json()["messages"][0]["content"] == "to this one"
    await visit.page.get_by_role("navigation").get_by_text("to a new one").click()
    await expect(visit.answer()).to_contain_text("Echo from agent: to a new one")
