"""The web page with a document open when something breaks off: nothing that was typed is lost, and it says why."""

import pytest
from playwright.async_api import Browser, Route, WebSocketRoute, expect

from tests.e2e.conftest import Running
from tests.support.api_client import make_token
from tests.support.browser import Visitor, visitor
from tests.support.document_page import Enter, here_at, is_stored, status_of, text_of
from tests.support.eventually import eventually
from tests.support.system import SECRET, Client
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_was_typed_offline_is_merged(enter: Enter, someone: Client) -> None:
    """Neither what one wrote offline nor what the other wrote meanwhile is lost; both are seen as present again."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")

    await ada.context.set_offline(True)
    await expect(status_of(ada)).to_contain_text("Offline. What you write is kept here")
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" Said offline.")
    await text_of(charles).click()
    await charles.page.keyboard.press("Control+Home")
    await charles.page.keyboard.type("Said meanwhile. ")
    await is_stored(someone, document, "Said meanwhile. The middle.")
    await ada.context.set_offline(False)

    await expect(status_of(ada)).to_have_text("Live")
    whole = "Said meanwhile. The middle. Said offline."
    await expect(text_of(ada)).to_have_text(whole)
    await expect(text_of(charles)).to_have_text(whole)
    await expect(here_at(charles)).to_have_text(["AL", "CB"])
    await expect(here_at(ada)).to_have_text(["CB", "AL"])
    await is_stored(someone, document, whole)


async def test_document_that_is_deleted_meanwhile_stays_readable(enter: Enter, someone: Client) -> None:
    """The page says so, and brings it back if that is wanted."""
    document = await someone.document("A paper", "Every word of it.")
    ada = await enter(document)

    assert (await someone.http.delete(f"/v1/documents/{document}")).status_code == 204
    await expect(status_of(ada)).to_contain_text("This document was deleted.")
    await expect(text_of(ada)).to_have_text("Every word of it.")
    await expect(text_of(ada)).not_to_be_editable()
    await ada.page.get_by_role("button", name="Restore").click()

    await expect(status_of(ada)).to_have_text("Live")
    await expect(text_of(ada)).to_be_editable()
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
    await expect(status_of(ada)).to_have_text("Live")
    await ada.context.set_offline(True)
    await expect(status_of(ada)).to_contain_text("Offline.")
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

    await expect(status_of(ada)).to_contain_text(said)
    await expect(text_of(ada)).to_have_text("Every word of it.")
    await expect(text_of(ada)).not_to_be_editable()
    await expect(status_of(ada).get_by_role("button", name="Copy")).to_be_visible()
    assert len(opened) == 2
    await status_of(ada).get_by_role("button", name="Open again").click()
    await expect(status_of(ada)).to_have_text("Live")


async def test_expired_ticket_is_replaced(enter: Enter, someone: Client) -> None:
    """The page asks for another one by itself, and goes on with what was there."""
    document = await someone.document("A paper", "Every word of it.")
    ada = await enter(document)

    opened = await _come_back_to(ada, 4401)

    await expect(status_of(ada)).to_have_text("Live")
    assert len(opened) == 3
    assert opened[1] != opened[2]


async def test_too_many_open_documents_are_said_and_waited_for(enter: Enter, someone: Client) -> None:
    """Nobody is told that they are offline; what is written meanwhile is sent as soon as another one was closed."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    await ada.page.clock.install()

    opened = await _come_back_to(ada, 4429)

    await expect(status_of(ada)).to_contain_text("Too many documents are open: close one")
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" Said meanwhile.")
    assert len(opened) == 2
    await ada.page.clock.fast_forward(11_000)
    await expect(status_of(ada)).to_have_text("Live")
    await is_stored(someone, document, "The middle. Said meanwhile.")
    assert len(opened) == 3


async def test_what_was_typed_offline_is_sent_also_if_something_else_is_opened(enter: Enter, someone: Client) -> None:
    """Whoever would close the page is asked first, since it is what keeps the text."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    ada.expect_dialogs()
    await ada.context.set_offline(True)
    await expect(status_of(ada)).to_contain_text("Offline.")
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" Said offline.")

    await ada.page.close(run_before_unload=True)
    await eventually(lambda: ada.dialogs)
    await ada.page.get_by_role("button", name="Close the document").click()
    await expect(text_of(ada)).to_have_count(0)
    await ada.context.set_offline(False)

    await is_stored(someone, document, "The middle. Said offline.")


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
        await expect(status_of(visit)).to_have_text("Live")
        await text_of(visit).click()
        await visit.page.keyboard.press("Control+End")
        proxy.switch(mode)
        if mode is Mode.RESET:
            await expect(status_of(visit)).to_contain_text("Offline.")
        await visit.page.keyboard.type(" Typed in vain?")
        answer = await someone.http.patch(f"/v1/documents/{document}", json={"content": "Before. The middle."})
        assert answer.status_code == 200
        proxy.switch(Mode.PASS)
        if mode is Mode.BLACK_HOLE:
            await visit.page.clock.fast_forward(35_000)

        await expect(text_of(visit)).to_have_text("Before. The middle. Typed in vain?")
        await expect(status_of(visit)).to_have_text("Live")
        await is_stored(someone, document, "Before. The middle. Typed in vain?")


async def _type_offline(ada: Visitor, text: str) -> None:
    await ada.context.set_offline(True)
    await expect(status_of(ada)).to_contain_text("Offline.")
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(text)


async def _let_token_end(ada: Visitor) -> None:
    """The token that the page has now is refused from here on, and no other is given unasked."""
    ended = "Bearer " + await ada.page.evaluate("localStorage.getItem('throughline.token')")

    async def answer(route: Route) -> None:
        if await route.request.header_value("authorization") != ended:
            await route.fallback()
        else:
            error = {"code": "unauthorized", "message": "The token has expired."}
            await route.fulfill(status=401, json={"error": error})

    await ada.page.route("**/v1/**", answer)
    await ada.page.route("**/development/token", lambda route: route.fulfill(status=404))


async def _sign_in(ada: Visitor, someone: Client, user: str) -> None:
    # Not the second's token that has ended.
    token = make_token(SECRET, (someone.workspace_id, "member"), user=user, name=user, again=True)
    field = ada.page.get_by_label("Your token")
    await field.fill(token)
    await field.press("Enter")


async def test_what_was_typed_offline_outlives_the_token(enter: Enter, someone: Client) -> None:
    """Whoever signs in again as the same person goes on with it; nobody sends it as somebody else."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    await _let_token_end(ada)
    await _type_offline(ada, " Said offline.")
    await ada.context.set_offline(False)
    await expect(ada.page.get_by_text("What you have written is kept here")).to_be_visible()

    ada.expect_dialogs()
    await _sign_in(ada, someone, "mallory")
    await eventually(lambda: ada.dialogs)
    assert "is not sent yet" in ada.dialogs[0]
    await expect(ada.page.get_by_label("Your token")).to_be_visible()
    await _sign_in(ada, someone, "ada lovelace")

    await expect(status_of(ada)).to_have_text("Live")
    await expect(text_of(ada)).to_have_text("The middle. Said offline.")
    await is_stored(someone, document, "The middle. Said offline.")
    await ada.say("hello again")
    await expect(ada.answer()).to_contain_text("Echo from agent: hello again")
    assert len(ada.dialogs) == 1


async def test_who_signs_out_with_unsent_text_is_asked_first(enter: Enter, someone: Client) -> None:
    """And stays as they were if they would rather stay."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    await _type_offline(ada, " Said offline.")

    ada.expect_dialogs()
    await ada.page.get_by_role("button", name="Sign out").click()
    await eventually(lambda: ada.dialogs)
    assert "is not sent yet" in ada.dialogs[0]
    assert await ada.page.evaluate("localStorage.getItem('throughline.token')")
    await expect(text_of(ada)).to_have_text("The middle. Said offline.")
    await ada.context.set_offline(False)

    await expect(status_of(ada)).to_have_text("Live")
    await is_stored(someone, document, "The middle. Said offline.")


async def test_restored_document_takes_what_was_not_sent(enter: Enter, someone: Client) -> None:
    """Deleted by another while somebody wrote offline: once it is restored, it has both texts."""
    document = await someone.document("A paper", "The middle.")
    ada = await enter(document)
    await _type_offline(ada, " Said offline.")
    assert (await someone.http.delete(f"/v1/documents/{document}")).status_code == 204
    await ada.context.set_offline(False)
    await expect(status_of(ada)).to_contain_text("This document was deleted.")

    await ada.page.get_by_role("button", name="Restore").click()

    await expect(status_of(ada)).to_have_text("Live")
    await expect(text_of(ada)).to_have_text("The middle. Said offline.")
    await is_stored(someone, document, "The middle. Said offline.")
