"""The web page: the list of documents, what one does with one of them, and where it is shown."""

import re

import pytest
from playwright.async_api import Browser, Locator, expect

from common.ids import new_id
from tests.e2e.conftest import Running
from tests.support.api_client import make_token
from tests.support.browser import Visitor, visitor
from tests.support.system import SECRET, Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WIDE = {"width": 1280, "height": 800}
_PHONE = {"width": 390, "height": 844}


def _token(someone: Client) -> str:
    return someone.headers["authorization"].removeprefix("Bearer ")


def _listed(visit: Visitor) -> Locator:
    return visit.page.get_by_role("navigation").get_by_role("link")


def _pane(visit: Visitor) -> Locator:
    return visit.page.get_by_role("region", name="Document")


def _name(visit: Visitor) -> Locator:
    return _pane(visit).get_by_role("heading", level=2)


async def _to_documents(visit: Visitor, *names: str) -> None:
    """The list of documents, once it shows these."""
    await visit.page.get_by_role("button", name="Documents", exact=True).click()
    await expect(_listed(visit)).to_have_text(list(names))


async def test_new_document_is_open_and_asks_for_its_name(visit: Visitor, someone: Client) -> None:
    """It is there at once; an empty name is none, and Enter takes the one that was typed."""
    await _to_documents(visit)
    await expect(visit.page.get_by_text("Nothing here yet.")).to_be_visible()

    await visit.page.get_by_role("button", name="New document").click()
    field = visit.page.get_by_role("textbox", name="Name")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("Untitled")
    await field.fill("Herring prices")
    await field.press("Enter")

    await expect(_name(visit)).to_have_text("Herring prices")
    await expect(_listed(visit)).to_have_text(["Herring prices"])
    [document] = (await someone.http.get("/v1/documents")).json()["data"]
    assert document["name"] == "Herring prices"
    await expect(visit.page.get_by_role("textbox", name="Document")).to_be_focused()
    assert visit.page.url == f"{visit.url}/#/?document={document['id']}"


async def test_list_is_searched_and_read_in_pieces(visit: Visitor, someone: Client) -> None:
    """Newest first; words of a name are enough; more of it comes when it is asked for."""
    for number in range(31):
        await someone.document(f"Number {number}")
    await someone.document("Herring prices")
    await visit.page.get_by_role("button", name="Documents", exact=True).click()

    await expect(_listed(visit)).to_have_count(30)
    await expect(_listed(visit).first).to_have_text("Herring prices")
    await visit.page.get_by_role("button", name="Show more").click()
    await expect(_listed(visit)).to_have_count(32)
    await visit.page.get_by_role("searchbox", name="Search documents").fill("herr")
    await expect(_listed(visit)).to_have_text(["Herring prices"])
    await visit.page.get_by_role("searchbox").fill("squid")
    await expect(visit.page.get_by_text("No document has these words.")).to_be_visible()


async def test_renamed_document_has_its_new_name_everywhere(visit: Visitor, someone: Client) -> None:
    """In the heading, in the list, in another tab and on the server; Escape leaves the old one."""
    document = await someone.document("Before")
    await visit.page.goto(f"{visit.url}/#/?document={document}")
    other = await visit.tab(f"/#/?document={document}")
    await _to_documents(visit, "Before")
    field = visit.page.get_by_role("textbox", name="Name")

    await visit.page.get_by_role("button", name="Rename document").click()
    await field.fill("Never mind")
    await field.press("Escape")
    await expect(_name(visit)).to_have_text("Before")
    await visit.page.get_by_role("button", name="Rename document").click()
    await field.fill("After")
    await field.press("Enter")

    await expect(_name(visit)).to_have_text("After")
    await expect(_listed(visit)).to_have_text(["After"])
    await expect(other.get_by_role("region").get_by_role("heading", level=2)).to_have_text("After")
    assert (await someone.http.get(f"/v1/documents/{document}")).json()["name"] == "After"


async def test_deleted_document_comes_back(visit: Visitor, someone: Client) -> None:
    """It goes at once, without a question, since one click brings it back, open as it was."""
    document = await someone.document("Doomed", "Every word of it.")
    await someone.document("Kept")
    await visit.page.goto(f"{visit.url}/#/?document={document}")
    await _to_documents(visit, "Kept", "Doomed")

    await visit.page.get_by_role("button", name="Delete document").click()
    await expect(_listed(visit)).to_have_text(["Kept"])
    await expect(_pane(visit)).to_have_count(0)
    await expect(visit.page.get_by_role("status")).to_contain_text("“Doomed” is deleted.")
    await visit.page.get_by_role("button", name="Undo").click()

    await expect(_listed(visit)).to_have_text(["Kept", "Doomed"])
    await expect(_name(visit)).to_have_text("Doomed")
    assert (await someone.http.get(f"/v1/documents/{document}")).json()["content"] == "Every word of it."


async def test_link_opens_what_it_names(visit: Visitor, someone: Client) -> None:
    """A document alone, or beside a conversation; a reload changes nothing, and closing it leaves the conversation."""
    document = await someone.document("A paper")
    conversation = await someone.conversation(title="A talk")
    title = visit.page.get_by_role("heading", level=1)

    await visit.page.goto(f"{visit.url}/#/?document={document}")
    await expect(_name(visit)).to_have_text("A paper")
    await expect(title).to_have_text("New conversation")
    await visit.page.reload()
    await expect(_listed(visit)).to_have_text(["A paper"])
    await visit.page.goto(f"{visit.url}/#/{conversation}?document={document.replace('-', '').upper()}")
    await visit.page.reload()
    await expect(title).to_have_text("A talk")
    await expect(_name(visit)).to_have_text("A paper")

    await visit.page.get_by_role("button", name="Close the document").click()
    await expect(_pane(visit)).to_have_count(0)
    await expect(title).to_have_text("A talk")
    assert visit.page.url == f"{visit.url}/#/{conversation}"


async def test_document_stays_while_the_conversation_changes(visit: Visitor, someone: Client) -> None:
    """Another conversation, a new one, and the first message of that: the document is beside all of them."""
    document = await someone.document("A paper")
    await someone.conversation(title="A talk")
    await visit.page.goto("about:blank")  # or only the address would change
    await visit.page.goto(f"{visit.url}/#/{new_id()}?document={document}")
    await expect(visit.page.get_by_role("status").first).to_contain_text("nothing here by that name")
    await expect(_name(visit)).to_have_text("A paper")

    await visit.page.get_by_role("button", name="Conversations", exact=True).click()
    await visit.page.get_by_role("link", name="A talk").click()
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("A talk")
    await visit.page.get_by_role("link", name="New conversation").click()
    await visit.say("hello there")
    await expect(visit.answer()).to_contain_text("Echo from agent: hello there")

    await expect(_name(visit)).to_have_text("A paper")
    await expect(visit.page).to_have_url(re.compile(rf"/#/[0-9a-f-]{{36}}\?document={document}$"))


async def test_editor_is_loaded_with_the_first_document(visit: Visitor, someone: Client) -> None:
    """Who only talks does not wait for what is five times as large as the rest."""
    document = await someone.document("A paper", "Every word of it.")
    scripts: list[str] = []
    visit.page.on("request", lambda request: scripts.append(request.url) if request.url.endswith(".js") else None)
    await visit.page.reload()
    await visit.say("hello there")
    await expect(visit.answer()).to_contain_text("Echo from agent: hello there")
    first = len(scripts)
    assert not any("room" in script for script in scripts)

    await visit.page.goto(f"{visit.url}/#/?document={document}")
    await expect(visit.page.get_by_role("textbox", name="Document")).to_have_text("Every word of it.")
    assert any("room" in script for script in scripts[first:])


async def test_address_of_no_document_shows_none(visit: Visitor) -> None:
    """The page says that there is nothing, also where one would bring it back, and goes on without it."""
    await visit.page.goto(f"{visit.url}/#/?document={new_id()}")

    await expect(_pane(visit).get_by_role("status")).to_contain_text("There is no such document here")
    await visit.page.get_by_role("button", name="Restore").click()
    await expect(visit.page.get_by_role("status").first).to_contain_text("There is nothing to restore")
    await expect(_pane(visit)).to_have_count(0)


async def test_link_to_a_deleted_document_offers_to_restore_it(visit: Visitor, someone: Client) -> None:
    """Also after a reload, when the page knows nothing of it."""
    document = await someone.document("Doomed", "Every word of it.")
    assert (await someone.http.delete(f"/v1/documents/{document}")).status_code == 204
    await visit.page.goto(f"{visit.url}/#/?document={document}")
    await visit.page.reload()

    await expect(_pane(visit).get_by_role("status")).to_contain_text("or it was deleted")
    await visit.page.get_by_role("button", name="Restore").click()

    await expect(_name(visit)).to_have_text("Doomed")
    await expect(visit.page.get_by_role("textbox", name="Document")).to_have_text("Every word of it.")


async def test_address_that_names_no_document_is_cleaned(visit: Visitor) -> None:
    """And the page says why nothing is open."""
    await expect(visit.page.get_by_role("button", name="Sign out")).to_be_visible()
    await visit.page.goto(f"{visit.url}/#/?document=garbage")

    await expect(visit.page.get_by_role("status").first).to_contain_text("There is no such document.")
    await expect(_pane(visit)).to_have_count(0)
    assert "garbage" not in visit.page.url


async def test_link_leads_into_the_document(visit: Visitor, someone: Client) -> None:
    """Who comes for a document can read on and write at once, and finds it among the others."""
    document = await someone.document("A paper", "Every word of it.")
    await visit.page.goto(f"{visit.url}/#/?document={document}")
    await visit.page.reload()

    await expect(visit.page.get_by_role("textbox", name="Document")).to_be_focused()
    await expect(_listed(visit)).to_have_text(["A paper"])


async def test_document_is_not_deleted_offline(visit: Visitor, someone: Client) -> None:
    """The page says so at once, and nothing happens later."""
    document = await someone.document("Kept", "Every word of it.")
    await visit.page.goto(f"{visit.url}/#/?document={document}")
    await expect(_name(visit)).to_have_text("Kept")
    await visit.context.set_offline(True)
    await expect(visit.page.get_by_role("status").first).to_have_text("You are offline.")

    await visit.page.get_by_role("button", name="Delete document").click()

    await expect(visit.page.get_by_role("status").first).to_contain_text("nothing was done", timeout=1000)
    await visit.context.set_offline(False)
    await expect(_pane(visit).get_by_role("status")).to_have_text("Live")
    assert (await someone.http.get(f"/v1/documents/{document}")).status_code == 200


async def test_mentioned_document_is_in_the_message(visit: Visitor, someone: Client) -> None:
    """With its id, which agents need, after what has been written; nothing is sent by itself."""
    document = await someone.document("A paper")
    await visit.page.goto(f"{visit.url}/#/?document={document}")
    field = visit.page.get_by_role("textbox", name="Message")
    await field.fill("Please shorten")

    await visit.page.get_by_role("button", name="Mention in message").click()

    await expect(field).to_have_value(f"Please shorten “A paper” (document {document}) ")
    await expect(field).to_be_focused()


async def test_viewer_reads_a_document(browser: Browser, running: Running, someone: Client) -> None:
    """All of it, and is offered nothing that would be refused."""
    document = await someone.document("A paper", "Every word of it.")
    token = make_token(SECRET, (someone.workspace_id, "viewer"), user="vera")
    async with visitor(browser, running.api.url, token) as visit:
        await visit.page.goto(f"{visit.url}/#/?document={document}")
        await visit.page.reload()
        text = visit.page.get_by_role("textbox", name="Document")
        await expect(text).to_have_text("Every word of it.")
        await expect(_pane(visit).get_by_role("status")).to_have_text("Live, to read only")
        await expect(text).not_to_be_editable()
        await expect(_listed(visit)).to_have_text(["A paper"])
        for name in ("New document", "Rename document", "Delete document"):
            await expect(visit.page.get_by_role("button", name=name)).to_have_count(0)


async def test_document_is_beside_the_conversation(browser: Browser, running: Running, someone: Client) -> None:
    """1280 px wide: both are seen and used, and nothing sticks out."""
    document = await someone.document("A paper " * 20, f"{'x' * 300}\n\n" * 80)
    async with visitor(browser, running.api.url, _token(someone), viewport=_WIDE) as visit:
        await visit.page.goto(f"{visit.url}/#/?document={document}")
        await expect(visit.page.get_by_role("textbox", name="Document")).to_contain_text("xxx")
        await visit.say("and the conversation goes on")
        await expect(visit.answer()).to_contain_text("the conversation goes on")

        await expect(visit.page.get_by_role("group", name="What to show")).to_be_hidden()
        chat = await visit.page.locator(".chat").bounding_box()
        paper = await _pane(visit).bounding_box()
        assert chat
        assert paper
        assert chat["width"] > 350
        assert chat["x"] + chat["width"] <= paper["x"]
        assert paper["x"] + paper["width"] == _WIDE["width"]
        assert paper["height"] == _WIDE["height"]
        assert await visit.page.evaluate("document.documentElement.scrollWidth") == _WIDE["width"]


async def test_phone_shows_one_of_the_two(browser: Browser, running: Running, someone: Client) -> None:
    """390 px wide: a switch says which; whatever is opened from the list is seen."""
    await someone.document("A paper", "Every word of it.")
    await someone.conversation(title="A talk")
    async with visitor(browser, running.api.url, _token(someone), viewport=_PHONE, has_touch=True) as visit:
        page, text = visit.page, visit.page.get_by_role("textbox", name="Document")
        message = page.get_by_role("textbox", name="Message")
        await page.get_by_role("button", name="Show the list").click()
        await page.get_by_role("button", name="Documents", exact=True).click()
        await page.get_by_role("link", name="A paper").click()
        await expect(text).to_have_text("Every word of it.")
        await expect(page.get_by_role("list", name="Who is here").get_by_role("listitem")).to_have_count(0)
        await expect(message).to_be_hidden()
        assert await page.evaluate("document.documentElement.scrollWidth") == _PHONE["width"]

        await page.get_by_role("button", name="Conversation", exact=True).click()
        await expect(message).to_be_visible()
        await expect(text).to_be_hidden()
        await page.get_by_role("button", name="Document", exact=True).click()
        await expect(text).to_be_visible()
        await page.get_by_role("button", name="Mention in message").click()
        await expect(message).to_have_value(re.compile("A paper"))

        await page.get_by_role("button", name="Document", exact=True).click()
        await page.get_by_role("button", name="Show the list").click()
        await page.get_by_role("button", name="Conversations", exact=True).click()
        await page.get_by_role("link", name="A talk").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("A talk")
        await expect(text).to_be_hidden()
