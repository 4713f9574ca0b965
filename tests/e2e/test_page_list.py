"""The web page: the list of conversations, and what one does with one of them."""

import pytest
from playwright.async_api import Locator, expect

from tests.support.browser import Visitor
from tests.support.system import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _listed(visit: Visitor) -> Locator:
    return visit.page.get_by_role("navigation").get_by_role("link")


async def _open(visit: Visitor, someone: Client, *titles: str) -> None:
    """Conversations with these titles, the first one open."""
    ids = [await someone.conversation(title=title) for title in titles]
    await visit.open(ids[0])
    await visit.page.reload()
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text(titles[0])
    await expect(_listed(visit)).to_have_text(list(reversed(titles)))


async def test_search_finds_titles(visit: Visitor, someone: Client) -> None:
    """A part of a title is enough; an empty field shows all of them again."""
    await _open(visit, someone, "Herring prices", "Cod", "More herrings")

    await visit.page.get_by_role("searchbox").fill("HERRING")
    await expect(_listed(visit)).to_have_text(["More herrings", "Herring prices"])
    await visit.page.get_by_role("searchbox").fill("squid")
    await expect(visit.page.get_by_text("No title contains this.")).to_be_visible()
    await visit.page.get_by_role("searchbox").fill("")
    await expect(_listed(visit)).to_have_count(3)


async def test_pinned_conversation_is_first(visit: Visitor, someone: Client) -> None:
    """It has a place of its own above the others, until it is unpinned."""
    await _open(visit, someone, "Old", "New")

    await visit.page.get_by_role("button", name="Pin", exact=True).click()
    await expect(_listed(visit)).to_have_text(["Old", "New"])
    await expect(visit.page.get_by_role("heading", name="Pinned")).to_be_visible()
    await visit.page.get_by_role("button", name="Unpin").click()
    await expect(_listed(visit)).to_have_text(["New", "Old"])


async def test_archived_conversation_is_in_the_archive_alone(visit: Visitor, someone: Client) -> None:
    """It leaves the list, is found in the archive, and comes back from there."""
    await _open(visit, someone, "Done with", "Current")
    archive = visit.page.get_by_role("button", name="Show the archive")

    await visit.page.get_by_role("button", name="Archive", exact=True).click()
    await expect(_listed(visit)).to_have_text(["Current"])
    await archive.click()
    await expect(_listed(visit)).to_have_text(["Done with"])
    await visit.page.get_by_role("button", name="Take out of the archive").click()
    await expect(_listed(visit)).to_have_count(0)
    await archive.click()
    await expect(_listed(visit)).to_have_text(["Current", "Done with"])


async def test_renamed_conversation_has_its_new_title_everywhere(visit: Visitor, someone: Client) -> None:
    """In the heading, in the list and on the server; Escape leaves the old one."""
    await _open(visit, someone, "Before")
    title = visit.page.get_by_role("textbox", name="Title")

    await visit.page.get_by_role("button", name="Rename").click()
    await title.fill("Never mind")
    await title.press("Escape")
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("Before")
    await visit.page.get_by_role("button", name="Rename").click()
    await title.fill("After")
    await title.press("Enter")

    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("After")
    await expect(_listed(visit)).to_have_text(["After"])
    [conversation] = (await someone.http.get("/v1/conversations")).json()["data"]
    assert conversation["title"] == "After"


async def test_deleted_conversation_is_gone_once_that_was_confirmed(visit: Visitor, someone: Client) -> None:
    """The question can be answered with no; with yes, the page shows a new conversation."""
    await _open(visit, someone, "Doomed", "Kept")

    await visit.page.get_by_role("button", name="Delete").click()
    await visit.page.get_by_role("button", name="Keep it").click()
    await expect(_listed(visit)).to_have_count(2)
    await visit.page.get_by_role("button", name="Delete").click()
    await visit.page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    await expect(_listed(visit)).to_have_text(["Kept"])
    await expect(visit.page.get_by_text("What shall we do?")).to_be_visible()


async def test_long_list_is_read_in_pieces(visit: Visitor, someone: Client) -> None:
    """More of it comes when it is asked for, and the button goes once there is no more."""
    for number in range(32):
        await someone.conversation(title=f"Number {number}")
    await visit.page.reload()

    await expect(_listed(visit)).to_have_count(30)
    more = visit.page.get_by_role("button", name="Show more")
    await more.click()
    await expect(_listed(visit)).to_have_count(32)
    await expect(more).to_have_count(0)


async def test_address_of_no_conversation_leads_to_a_new_one(visit: Visitor, someone: Client) -> None:
    """The page says that there is nothing, and is ready for a message."""
    await visit.page.goto(f"{visit.url}/#/0198f000-0000-7000-8000-00000000dead")

    await expect(visit.page.get_by_role("status").first).to_contain_text("nothing here by that name")
    await expect(visit.page.get_by_text("What shall we do?")).to_be_visible()
