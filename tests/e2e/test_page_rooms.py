"""The web page: a document that several people and agents edit at once."""

import json
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.support.document_page import Enter, here_at, is_stored, text_of
from tests.support.eventually import eventually
from tests.support.system import Client

_MEASURE_TASKS = """() => {
    let longest = 0;
    const note = (entries) => entries.forEach(({ duration }) => (longest = Math.max(longest, duration)));
    const observer = new PerformanceObserver((list) => note(list.getEntries()));
    observer.observe({ type: "longtask" });
    window.longestTask = () => (note(observer.takeRecords()), longest);
}"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_two_people_see_each_other_type(enter: Enter, someone: Client) -> None:
    """Every letter of each in the other's text, where the other's cursor is, and all of it in the database."""
    document = await someone.document("A paper", "Beginning.\n")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")

    await text_of(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type("Ada was here.")
    await expect(text_of(charles)).to_contain_text("Ada was here.")
    await expect(text_of(charles).locator(".caret")).to_have_attribute("data-name", "Ada Lovelace")
    await text_of(charles).click()
    await charles.page.keyboard.press("Control+Home")
    await charles.page.keyboard.type("Charles too. ")

    await expect(text_of(ada).locator(".cm-line").first).to_contain_text("Charles too. ")
    await expect(text_of(ada).locator(".caret")).to_have_attribute("data-name", "Charles Babbage")
    await is_stored(someone, document, "Charles too. Beginning.\nAda was here.")


async def test_everybody_sees_who_is_here(enter: Enter, someone: Client) -> None:
    """Each person once, with their name; whoever closes the document is gone from the list."""
    document = await someone.document("A paper")
    ada = await enter(document)
    await expect(here_at(ada)).to_have_text(["AL"])
    charles = await enter(document, "Charles Babbage")

    await expect(here_at(ada)).to_have_text(["CB", "AL"])
    await expect(here_at(charles)).to_have_text(["AL", "CB"])
    await expect(ada.page.get_by_role("button", name="Go to Charles Babbage", exact=True)).to_be_visible()
    await expect(ada.page.get_by_role("button", name="Go to Ada Lovelace, you")).to_be_visible()

    await charles.page.get_by_role("button", name="Close the document").click()
    await expect(here_at(ada)).to_have_text(["AL"])


async def test_agent_writes_while_somebody_types(enter: Enter, someone: Client) -> None:
    """What a tool appends appears in the open document, and what is typed meanwhile stays."""
    document = await someone.document("A paper", "Beginning.\n")
    ada = await enter(document)
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+Home")
    await ada.page.keyboard.type("Typed before. ")
    arguments = quote(json.dumps({"id": document, "content": "From the agent."}))

    run = await someone.start("go on", provider="echo", model=f"echo?tool=doc_append&args={arguments}")
    await ada.page.keyboard.type("Typed meanwhile. ")
    await expect(text_of(ada)).to_contain_text("From the agent.")
    await expect(ada.page.get_by_role("button", name="Go to Agent, an agent")).to_be_visible()
    await expect(text_of(ada).locator(".caret.agent")).to_have_attribute("data-name", "Agent")
    await someone.state_is(run, "completed")

    text = (await someone.http.get(f"/v1/documents/{document}")).json()["content"]
    assert text.startswith("Typed before. Typed meanwhile. Beginning.\n")
    assert "From the agent." in text


async def test_click_on_somebody_goes_to_where_they_are(enter: Enter, someone: Client) -> None:
    """Also when that is far from what is seen."""
    document = await someone.document("A paper", "A line.\n" * 2000 + "The end.")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")
    await text_of(charles).click()
    await charles.page.keyboard.press("Control+End")
    await expect(text_of(charles)).to_contain_text("The end.")
    await expect(text_of(ada)).not_to_contain_text("The end.")

    async def has_gone() -> bool:
        # Until where the other is has come, the click leads nowhere.
        await ada.page.get_by_role("button", name="Go to Charles Babbage").click()
        return "The end." in await text_of(ada).inner_text()

    await eventually(has_gone, 10, 0.1)
    await expect(text_of(ada).locator(".caret")).to_be_in_viewport()


async def test_undo_takes_back_ones_own(enter: Enter, someone: Client) -> None:
    """What somebody else has written meanwhile stays."""
    document = await someone.document("A paper")
    ada = await enter(document)
    charles = await enter(document, "Charles Babbage")
    await text_of(ada).click()
    await ada.page.keyboard.type("mine")
    await expect(text_of(charles)).to_have_text("mine")
    await text_of(charles).click()
    await charles.page.keyboard.press("Control+End")
    await charles.page.keyboard.type(" and theirs")
    await expect(text_of(ada)).to_contain_text("mine and theirs")

    await ada.page.keyboard.press("Control+z")
    await is_stored(someone, document, " and theirs")
    await ada.page.keyboard.press("Control+y")
    await is_stored(someone, document, "mine and theirs")


async def test_lines_that_end_otherwise_are_kept(enter: Enter, someone: Client) -> None:
    """A text with carriage returns is edited at the place that is seen, also behind letters of two UTF-16 units."""
    document = await someone.document("A paper", "one\r\n🐟 two\r\nthree")
    ada = await enter(document)

    await text_of(ada).click()
    await ada.page.keyboard.press("Control+End")
    await ada.page.keyboard.type(" and four")

    await is_stored(someone, document, "one\r\n🐟 two\r\nthree and four")


async def test_keyboard_goes_into_a_document_and_out(enter: Enter, someone: Client) -> None:
    """Tab indents there; after Escape it goes on to what comes next, and Escape stops no answer."""
    document = await someone.document("A paper", "word")
    ada = await enter(document)
    await ada.page.get_by_label("Model").select_option("echo/echo?delayMs=50&repeat=20&tool=current_time")
    await ada.say("a long answer")
    await expect(ada.answer()).to_contain_text("Echo from agent")

    await ada.page.get_by_role("button", name="Close the document").focus()
    await ada.page.keyboard.press("Tab")
    await expect(text_of(ada)).to_be_focused()
    await ada.page.keyboard.press("Tab")
    await is_stored(someone, document, "  word")
    await ada.page.keyboard.press("Escape")
    await ada.page.keyboard.press("Shift+Tab")

    await expect(ada.page.get_by_role("button", name="Close the document")).to_be_focused()
    await is_stored(someone, document, "  word")
    await expect(ada.page.get_by_role("button", name="Stop")).to_be_visible()


async def test_search_finds_lines_that_are_not_drawn(enter: Enter, someone: Client) -> None:
    """The editor draws what is seen, so the browser's own search would find no more than that."""
    document = await someone.document("A paper", "A line.\n" * 2000 + "The herring.\n")
    ada = await enter(document)
    await expect(text_of(ada)).not_to_contain_text("herring")

    await text_of(ada).click()
    await ada.page.keyboard.press("Control+f")
    await ada.page.keyboard.type("herring")
    await ada.page.keyboard.press("Enter")
    await expect(text_of(ada)).to_contain_text("The herring.")
    await ada.page.keyboard.press("Escape")

    await expect(text_of(ada)).to_be_focused()
    await ada.page.keyboard.type("cod")
    await is_stored(someone, document, "A line.\n" * 2000 + "The cod.\n")


async def test_paragraph_that_nobody_would_read_is_typed_into_at_once(enter: Enter, someone: Client) -> None:
    """Thousands of lines with a link each and no blank one: markdown is not read there, as keys come first."""
    document = await someone.document(
        "A paper", "A line with [a link](https://example.org/of/some/length) in it.\n" * 13_000
    )
    ada = await enter(document)
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+Home")
    await ada.page.evaluate(_MEASURE_TASKS)
    for letter in "herring":
        await ada.page.keyboard.press(letter)

    await expect(text_of(ada)).to_contain_text("herringA line")
    longest = await ada.page.evaluate("longestTask()")
    assert longest < 400, longest


async def test_paragraph_that_grows_too_long_loses_its_colours(enter: Enter, someone: Client) -> None:
    """Others are coloured as markdown is."""
    document = await someone.document("A paper", "A **strong** word.\n" + "A line.\n" * 3_990)
    ada = await enter(document)
    strong = text_of(ada).locator(".cm-line").first.locator("span")
    await expect(strong.first).to_be_visible()
    await text_of(ada).click()
    await ada.page.keyboard.press("Control+Home")
    await ada.page.keyboard.insert_text("A long one. " * 20)

    await expect(strong).to_have_count(0)
