"""Two people and an agent in one document, each person at an API process of their own."""

import asyncio

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.conftest import Running
from tests.support.api_client import make_token
from tests.support.browser import visitor
from tests.support.document_page import here_at, is_stored, status_of, text_of
from tests.support.model_script import Call, Reply
from tests.support.system import SECRET, Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LETTER_MS = 15


async def test_two_people_at_two_apis_type_at_once_while_the_agent_edits(
    browser: Browser, running: Running, someone: Client
) -> None:
    """In neighbouring lines: in the end both see the same text, which is the one that is stored."""
    document = await someone.document("A paper", "Ada: \nAgent: old\nCharles: \nThe end.")
    second = await running.system.api()
    async with (
        visitor(browser, running.api.url, _token(someone, "Ada Lovelace")) as ada,
        visitor(browser, second.url, _token(someone, "Charles Babbage")) as charles,
    ):
        for visit in (ada, charles):
            await visit.page.goto(f"{visit.url}/#/?document={document}")
            await expect(status_of(visit)).to_have_text("Live")
        await expect(here_at(charles)).to_have_count(2)
        running.system.models.script(
            Reply(calls=(Call("doc_edit", {"id": document, "old_text": "old", "new_text": "new 🐟"}),)),
            Reply(calls=(Call("doc_append", {"id": document, "content": "\nAppended."}),)),
            Reply(text="done"),
        )
        said = "I think that this engine might compose music."
        answered = "But it has never been built, dear Ada!"

        await text_of(ada).click()
        await ada.page.keyboard.press("Control+Home")
        await ada.page.keyboard.press("End")
        await text_of(charles).click()
        for key in ("Control+End", "ArrowUp", "End"):
            await charles.page.keyboard.press(key)
        run, *_ = await asyncio.gather(
            someone.start("edit", provider="anthropic", model="claude-test"),
            ada.page.keyboard.type(said, delay=_LETTER_MS),
            charles.page.keyboard.type(answered, delay=_LETTER_MS),
        )
        await someone.state_is(run, "completed")

        await is_stored(someone, document, f"Ada: {said}\nAgent: new 🐟\nCharles: {answered}\nThe end.\nAppended.")
        for visit in (ada, charles):
            await expect(text_of(visit).locator(".cm-line")).to_have_text(
                ["Ada: " + said, "Agent: new 🐟", "Charles: " + answered, "The end.", "Appended."]
            )


def _token(someone: Client, name: str) -> str:
    return make_token(SECRET, (someone.workspace_id, "member"), user=name.lower(), name=name)
