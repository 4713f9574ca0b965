"""The web page with a document open: what a test looks at."""

from collections.abc import Awaitable
from typing import Protocol

from playwright.async_api import Locator

from tests.support.browser import Visitor
from tests.support.eventually import eventually
from tests.support.system import Client


class Enter(Protocol):
    """Opens a document as a member with this name, in a browser of their own."""

    def __call__(self, document: str, name: str = "Ada Lovelace") -> Awaitable[Visitor]: ...


def text_of(visit: Visitor) -> Locator:
    """The editor."""
    return visit.page.get_by_role("textbox", name="Document")


def status_of(visit: Visitor) -> Locator:
    """The line below the document."""
    return visit.page.get_by_role("region", name="Document").get_by_role("status")


def here_at(visit: Visitor) -> Locator:
    """Who is there, as the page shows them."""
    return visit.page.get_by_role("list", name="Who is here").get_by_role("listitem")


async def is_stored(someone: Client, document: str, content: str) -> None:
    """Waits until the server has this text."""

    async def stored() -> bool:
        found = (await someone.http.get(f"/v1/documents/{document}")).json()["content"]
        assert found == content, found
        return True

    await eventually(stored, 10)
