"""The web page: a document that several people and agents edit at once."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, WebSocketRoute, expect

from tests.e2e.conftest import Running
from tests.support.api_client import make_token
from tests.support.browser import Visitor, visitor
from tests.support.eventually import eventually
from tests.support.system import SECRET, Client
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

Enter = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(loop_scope="module")
async def enter(browser: Browser, running: Running, someone: Client) -> AsyncIterator[Enter]:
    """Opens a document as a member with this name, in a browser of their own."""
    async with AsyncExitStack() as stack:

        async def enter(document: str, name: str = "Ada Lovelace") -> Visitor:
            token = make_token(SECRET, (someone.workspace_id, "member"), user=name.lower(), name=name)
            visit = await stack.enter_async_context(visitor(browser, running.api.url, token))
            await visit.page.goto(f"{visit.url}/#/?document={document}")
            await expect(_status(visit)).to_have_text("Live")
            return visit

        yield enter


def _text(visit: Visitor) -> Locator:
    return visit.page.get_by_role("textbox", name="Document")


def _status(visit: Visitor) -> Locator:
    return visit.page.get_by_role("region", name="Document").get_by_role("status")


def _here(visit: Visitor) -> Locator:
    return visit.page.get_by_role("list", name="Who is here").get_by_role("listitem")


async def _is_stored(someone: Client, document: str, content: str) -> None:
    async def stored() -> bool:
        found = (await someone.http.get(f"/v1/documents/{document}")).json()["content"]
        assert found == content
        return True

    await eventually(stored, 10)


async def test_two_people_see_each_other_type(enter: Enter, someone: Client) -> None:
    """Every letter of each in the other's text, where the other's cursor is, and all of it in the database."""
    document = await someone.document("A paper", "Beginning.\n")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")

    await _text(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type("Ada was here.")
    await expect(_text(charles)).to_contain_text("Ada was here.")
    await expect(_text(charles).locator(".caret")).to_have_attribute("data-name", "Ada Lovelace")
    await _text(charles).click()
    await charles.page.keyboard.press("Control+Home")
    await charles.page.keyboard.type("Charles too. ")

    await expect(_text(ada).locator(".cm-line").first).to_contain_text("Charles too. ")
    await expect(_text(ada).locator(".caret")).to_have_attribute("data-name", "Charles Babbage")
    await _is_stored(someone, document, "Charles too. Beginning.\nAda was here.")


async def test_everybody_sees_who_is_here(enter: Enter, someone: Client) -> None:
    """Each person once, with their name; whoever closes the document is gone from the list."""
    document = await someone.document("A paper")
    ada = await enter(document)
    await expect(_here(ada)).to_have_text(["AL"])
    charles = await enter(document, "Charles Babbage")

    await expect(_here(ada)).to_have_text(["CB", "AL"])
    await expect(_here(charles)).to_have_text(["AL", "CB"])
    await expect(ada.page.get_by_role("button", name="Go to Charles Babbage", exact=True)).to_be_visible()
    await expect(ada.page.get_by_role("button", name="Go to Ada Lovelace, you")).to_be_visible()

    await charles.page.get_by_role("button", name="Close the document").click()
    await expect(_here(ada)).to_have_text(["AL"])


async def test_what_was_typed_offline_is_merged(enter: Enter, someone: Client) -> None:
    """Neither what one wrote offline nor what the other wrote meanwhile is lost; both are seen as present again."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")

    await ada.context.set_offline(True)
    await expect(_status(ada)).to_contain_text("Offline. What you write is kept here")
    await _text(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" Said offline.")
    await _text(charles).click()
    await charles.page.keyboard.press("Control+Home")
    await charles.page.keyboard.type("Said meanwhile. ")
    await _is_stored(someone, document, "Said meanwhile. The middle.")
    await ada.context.set_offline(False)

    await expect(_status(ada)).to_have_text("Live")
    whole = "Said meanwhile. The middle. Said offline."
    await expect(_text(ada)).to_have_text(whole)
    await expect(_text(charles)).to_have_text(whole)
    await expect(_here(charles)).to_have_text(["AL", "CB"])
    await expect(_here(ada)).to_have_text(["CB", "AL"])
    await _is_stored(someone, document, whole)


async def test_agent_writes_while_somebody_types(enter: Enter, someone: Client) -> None:
    """What a tool appends appears in the open document, and what is typed meanwhile stays."""
    document = await someone.document("A paper", "Beginning.\n")
    ada = await enter(document)
    await _text(ada).click()
    await ada.page.keyboard.press("Control+Home")
    await ada.page.keyboard.type("Typed before. ")
    arguments = quote(json.dumps({"id": document, "content": "From the agent."}))

    run = await someone.start("go on", provider="echo", model=f"echo?tool=doc_append&args={arguments}")
    await ada.page.keyboard.type("Typed meanwhile. ")
    await expect(_text(ada)).to_contain_text("From the agent.")
    await expect(ada.page.get_by_role("button", name="Go to Agent, an agent")).to_be_visible()
    await expect(_text(ada).locator(".caret.agent")).to_have_attribute("data-name", "Agent")
    await someone.state_is(run, "completed")

    text = (await someone.http.get(f"/v1/documents/{document}")).json()["content"]
    assert text.startswith("Typed before. Typed meanwhile. Beginning.\n")
    assert "From the agent." in text


async def test_click_on_somebody_goes_to_where_they_are(enter: Enter, someone: Client) -> None:
    """Also when that is far from what is seen."""
    document = await someone.document("A paper", "A line.\n" * 2000 + "The end.")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")
    await _text(charles).click()
    await charles.page.keyboard.press("Control+End")
    await expect(_text(charles)).to_contain_text("The end.")
    await expect(_text(ada)).not_to_contain_text("The end.")

    async def has_gone() -> bool:
        # Until where the other is has come, the click leads nowhere.
        await ada.page.get_by_role("button", name="Go to Charles Babbage").click()
        return "The end." in await _text(ada).inner_text()

    await eventually(has_gone, 10, 0.1)
    await expect(_text(ada).locator(".caret")).to_be_in_viewport()


async def test_undo_takes_back_ones_own(enter: Enter, someone: Client) -> None:
    """What somebody else has written meanwhile stays."""
    document = await someone.document("A paper")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")
    await _text(ada).click()
    await ada.page.keyboard.type("mine")
    await expect(_text(charles)).to_have_text("mine")
    await _text(charles).click()
    await charles.page.keyboard.press("Control+End")
    await charles.page.keyboard.type(" and theirs")
    await expect(_text(ada)).to_contain_text("mine and theirs")

    await ada.page.keyboard.press("Control+z")
    await _is_stored(someone, document, " and theirs")
    await ada.page.keyboard.press("Control+y")
    await _is_stored(someone, document, "mine and theirs")


async def test_lines_that_end_otherwise_are_kept(enter: Enter, someone: Client) -> None:
    """A text with carriage returns is edited at the place that is seen, also behind letters of two UTF-16 units."""
    document = await someone.document("A paper", "one\r\n🐟 two\r\nthree")
    ada = await enter(document)

    await _text(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" and four")

    await _is_stored(someone, document, "one\r\n🐟 two\r\nthree and four")


async def test_keyboard_goes_into_a_document_and_out(enter: Enter, someone: Client) -> None:
    """Tab indents there; after Escape it goes on to what comes next, and Escape stops no answer."""
    document = await someone.document("A paper", "word")
    ada = await enter(document)
    await ada.page.get_by_label("Model").select_option("echo/echo?delayMs=50&repeat=20&tool=current_time")
    await ada.say("a long answer")
    await expect(ada.answer()).to_contain_text("Echo from agent")

    await ada.page.get_by_role("button", name="Close the document").focus()
    await ada.page.keyboard.press("Tab")
    await expect(_text(ada)).to_be_focused()
    await ada.page.keyboard.press("Tab")
    await _is_stored(someone, document, "  word")
    await ada.page.keyboard.press("Escape")
    await ada.page.keyboard.press("Shift+Tab")

    await expect(ada.page.get_by_role("button", name="Close the document")).to_be_focused()
    await _is_stored(someone, document, "  word")
    await expect(ada.page.get_by_role("button", name="Stop")).to_be_visible()


async def test_search_finds_lines_that_are_not_drawn(enter: Enter, someone: Client) -> None:
    """The editor draws what is seen, so the browser's own search would find no more than that."""
    document = await someone.document("A paper", "A line.\n" * 2000 + "The herring.\n")
    ada = await enter(document)
    await expect(_text(ada)).not_to_contain_text("herring")

    await _text(ada).click()
    await ada.page.keyboard.press("Control+f")
    await ada.page.keyboard.type("herring")
    await ada.page.keyboard.press("Enter")
    await expect(_text(ada)).to_contain_text("The herring.")
    await ada.page.keyboard.press("Escape")

    await expect(_text(ada)).to_be_focused()
    await ada.page.keyboard.type("cod")
    await _is_stored(someone, document, "A line.\n" * 2000 + "The cod.\n")


async def test_document_that_is_deleted_meanwhile_stays_readable(enter: Enter, someone: Client) -> None:
    """The page says so, and brings it back if that is wanted."""
    document = await someone.document("A paper", "Every word of it.")
    ada = await enter(document)

    assert (await someone.http.delete(f"/v1/documents/{document}")).status_code == 204
    await expect(_status(ada)).to_contain_text("This document was deleted.")
    await expect(_text(ada)).to_have_text("Every word of it.")
    await expect(_text(ada)).not_to_be_editable()
    await ada.page.get_by_role("button", name="Restore").click()

    await expect(_status(ada)).to_have_text("Live")
    await expect(_text(ada)).to_be_editable()
    assert (await someone.http.get(f"/v1/documents/{document}")).json()["deletedAt"] is None


async def _come_back_to(ada: Visitor, code: int) -> list[str]:
    """Loses the connection; the next one is closed with `code`. The addresses of all that are opened from here on."""
    opened: list[str] = []

    async def route(socket: WebSocketRoute) -> None:
        opened.append(socket.url)
        if len(opened) == 2:
            await socket.close(code=code)
        else:
            socket.connect_to_server()

    await ada.page.route_web_socket("**/sync?*", route)
    await ada.page.reload()
    await expect(_status(ada)).to_have_text("Live")
    await ada.context.set_offline(True)
    await expect(_status(ada)).to_contain_text("Offline.")
    await ada.context.set_offline(False)
    return opened


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (4400, "The last change was not accepted."),
        (4403, "You have no access"),
        (4413, "The document is full"),
        (1009, "The document is full"),
    ],
)
async def test_refusal_is_said_and_the_text_kept(enter: Enter, someone: Client, code: int, said: str) -> None:
    """Nothing is tried again by itself; the text can be read and copied, and the document opened again."""
    document = await someone.document("A paper", "Every word of it.")
    ada = await enter(document)

    opened = await _come_back_to(ada, code)

    await expect(_status(ada)).to_contain_text(said)
    await expect(_text(ada)).to_have_text("Every word of it.")
    await expect(_text(ada)).not_to_be_editable()
    await expect(_status(ada).get_by_role("button", name="Copy")).to_be_visible()
    assert len(opened) == 2
    await _status(ada).get_by_role("button", name="Open again").click()
    await expect(_status(ada)).to_have_text("Live")


async def test_expired_ticket_is_replaced(enter: Enter, someone: Client) -> None:
    """The page asks for another one by itself, and goes on with what was there."""
    document = await someone.document("A paper", "Every word of it.")
    ada = await enter(document)

    opened = await _come_back_to(ada, 4401)

    await expect(_status(ada)).to_have_text("Live")
    assert len(opened) == 3
    assert opened[1] != opened[2]


async def test_what_was_typed_offline_is_sent_also_if_something_else_is_opened(enter: Enter, someone: Client) -> None:
    """Whoever would close the page is asked first, since it is what keeps the text."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    ada.expect_dialogs()
    await ada.context.set_offline(True)
    await expect(_status(ada)).to_contain_text("Offline.")
    await _text(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" Said offline.")

    await ada.page.close(run_before_unload=True)
    await eventually(lambda: ada.dialogs)
    await ada.page.get_by_role("button", name="Close the document").click()
    await expect(_text(ada)).to_have_count(0)
    await ada.context.set_offline(False)

    await _is_stored(someone, document, "The middle. Said offline.")


@pytest.mark.parametrize("mode", [Mode.RESET, Mode.BLACK_HOLE])
async def test_what_was_typed_into_a_dead_connection_arrives(
    browser: Browser, running: Running, someone: Client, mode: Mode
) -> None:
    """Whether the connection says that it has died or falls silent: another is opened, and both texts are merged."""
    document = await someone.document("A paper", "The middle.")
    port = int(running.api.url.rpartition(":")[2])
    token = someone.headers["authorization"].removeprefix("Bearer ")
    async with (
        TcpProxy(("127.0.0.1", port)) as proxy,
        visitor(browser, f"http://127.0.0.1:{proxy.port}", token) as visit,
    ):
        await visit.page.clock.install()
        await visit.page.goto(f"{visit.url}/#/?document={document}")
        await expect(_status(visit)).to_have_text("Live")
        await _text(visit).click()
        await visit.page.keyboard.press("Control+End")
        proxy.switch(mode)
        if mode is Mode.RESET:
            await expect(_status(visit)).to_contain_text("Offline.")
        await visit.page.keyboard.type(" Typed in vain?")
        answer = await someone.http.patch(f"/v1/documents/{document}", json={"content": "Before. The middle."})
        assert answer.status_code == 200
        proxy.switch(Mode.PASS)
        if mode is Mode.BLACK_HOLE:
            await visit.page.clock.fast_forward(35_000)

        await expect(_text(visit)).to_have_text("Before. The middle. Typed in vain?")
        await expect(_status(visit)).to_have_text("Live")
        await _is_stored(someone, document, "Before. The middle. Typed in vain?")
