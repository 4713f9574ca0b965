"""The web page by keyboard, on a phone, in the dark, and for who has to sign in."""

import pytest
from playwright.async_api import Browser, expect

from common.ids import new_id
from tests.e2e.conftest import Running
from tests.support.api_client import make_token
from tests.support.browser import Visitor, visitor
from tests.support.eventually import eventually
from tests.support.system import SECRET, Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PHONE = {"width": 390, "height": 844}
_WIDE = "x" * 300


def _token(someone: Client) -> str:
    return someone.headers["authorization"].removeprefix("Bearer ")


async def test_keyboard_is_enough(visit: Visitor) -> None:
    """Write, break a line, send, stop, search, begin anew, and read the list of keys, all without a mouse."""
    page = visit.page
    field = page.get_by_role("textbox", name="Message")
    await expect(field).to_be_focused()
    await page.get_by_label("Model").select_option("echo/echo?delayMs=50&repeat=20&tool=current_time")
    await field.focus()
    await page.keyboard.type("first line")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("second line")
    await page.keyboard.press("Enter")
    await expect(page.locator(".bubble")).to_have_text("first line\nsecond line")
    await expect(field).to_have_value("")
    await expect(visit.answer()).to_contain_text("Echo from agent")

    await page.keyboard.press("Escape")
    await expect(visit.answer()).to_contain_text("Stopped.")
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.press("Alt+n")
    await expect(page.get_by_text("What shall we do?")).to_be_visible()
    await expect(field).to_be_focused()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()


async def test_focus_goes_through_the_page_in_its_order(visit: Visitor, someone: Client) -> None:
    """From the list to the conversation to the field, and every stop has a name."""
    conversation = await someone.conversation(title="A talk")
    await visit.open(conversation)
    await visit.page.reload()
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("A talk")
    await visit.page.mouse.click(2, 2)

    names = []
    for _ in range(17):
        await visit.page.keyboard.press("Tab")
        name = await visit.page.evaluate(
            "(e => e.getAttribute('aria-label') ?? e.textContent.trim())(document.activeElement)"
        )
        names.append(name)
        if name == "Model":
            break

    assert names == [
        *("Conversations", "Documents", "New conversation", "Search titles", "Show the archive", "A talk"),
        *("Shortcuts ?", "Dark colours", "Sign out"),
        *("Rename", "Pin", "Archive", "Delete", "Message", "Model"),
    ]


async def test_reader_further_up_is_left_there_while_the_answer_grows(visit: Visitor, someone: Client) -> None:
    """Who is at the end stays at the end; who has scrolled up reads on undisturbed, and can get back."""
    conversation = await someone.conversation(provider="echo", model="echo?delayMs=20&repeat=60")
    await visit.open(conversation)
    await visit.say("a line\n\n" * 8)
    scroller = visit.page.locator(".scroller")
    at_end = "e => e.scrollHeight - e.clientHeight - e.scrollTop < 2"
    await eventually(lambda: scroller.evaluate("e => e.scrollTop > 400"), 20)
    assert await scroller.evaluate(at_end)

    await scroller.hover()
    await visit.page.mouse.wheel(0, -300)
    latest = visit.page.get_by_role("button", name="To the latest")
    await expect(latest).to_be_visible()
    place, height = await scroller.evaluate("e => [e.scrollTop, e.scrollHeight]")
    await eventually(lambda: scroller.evaluate(f"e => e.scrollHeight > {height} + 200"), 20)
    assert await scroller.evaluate("e => e.scrollTop") == place

    await latest.click()
    await expect(latest).to_have_count(0)
    assert await scroller.evaluate(at_end)
    await visit.page.keyboard.press("Escape")
    await expect(visit.answer()).to_contain_text("Stopped.")


async def test_page_fits_a_phone(browser: Browser, running: Running, someone: Client) -> None:
    """390 px wide: nothing sticks out, whatever is in an answer; the list is a drawer that opens and closes."""
    await someone.conversation(title="On the phone")
    async with visitor(browser, running.api.url, _token(someone), viewport=_PHONE, has_touch=True) as visit:
        await visit.say(f"{_WIDE}\n\n```\n{_WIDE}\n```\n\n| {_WIDE} | b |\n|---|---|\n| c | d |")
        await expect(visit.page.get_by_role("button", name="Answer again")).to_be_visible()
        assert await visit.page.evaluate("document.documentElement.scrollWidth") == _PHONE["width"]
        overflowing = "e => e.scrollWidth > e.clientWidth"
        assert not await visit.page.locator(".scroller").evaluate(overflowing)

        drawer = visit.page.get_by_role("complementary")
        await expect(drawer).to_be_hidden()
        await visit.page.get_by_role("button", name="Show the list").click()
        await expect(drawer).to_be_in_viewport()
        await drawer.get_by_role("link", name="On the phone").click()
        await expect(visit.page.get_by_role("heading", level=1)).to_have_text("On the phone")
        await expect(drawer).to_be_hidden()
        assert await visit.page.evaluate("document.documentElement.scrollWidth") == _PHONE["width"]


async def test_reader_further_up_is_left_there_when_the_answer_ends(visit: Visitor, someone: Client) -> None:
    """Neither an end nor a stop moves what somebody is reading."""
    conversation = await someone.conversation(provider="echo", model="echo?delayMs=20&repeat=12")
    await visit.open(conversation)
    await visit.say("\n".join(f"- line {number}" for number in range(12)))
    scroller = visit.page.locator(".scroller")
    await eventually(lambda: scroller.evaluate("e => e.scrollHeight > e.clientHeight + 400"), 20)
    await scroller.evaluate("e => e.scrollTo(0, 100)")
    await expect(visit.page.get_by_role("button", name="To the latest")).to_be_visible()

    await visit.page.get_by_role("button", name="Stop").click()

    await expect(visit.page.get_by_role("button", name="Answer again")).to_be_visible()
    assert await scroller.evaluate("e => e.scrollTop") == 100


@pytest.mark.parametrize("system", ["light", "dark"])
async def test_colours_follow_the_system_until_somebody_chooses(
    browser: Browser, running: Running, someone: Client, system: str
) -> None:
    """The choice survives a reload; choosing again follows the system again."""
    other = "dark" if system == "light" else "light"
    background = "getComputedStyle(document.body).backgroundColor"
    async with visitor(browser, running.api.url, _token(someone), color_scheme=system) as visit:
        of_system = await visit.page.evaluate(background)
        await visit.page.get_by_role("button", name=f"{other} colours").click()
        chosen = await visit.page.evaluate(background)
        assert chosen != of_system
        await visit.page.reload()
        await expect(visit.page.get_by_role("button", name=f"{system} colours")).to_be_visible()
        assert await visit.page.evaluate(background) == chosen
        await visit.page.get_by_role("button", name=f"{system} colours").click()
        assert await visit.page.evaluate(background) == of_system


async def test_production_asks_for_a_token(browser: Browser, running: Running, someone: Client) -> None:
    """Nonsense is told apart, a token that is not accepted leads back, a good one is kept over a reload."""
    api = await running.system.api(THROUGHLINE_ENV="production", WEB_PAGE="true")
    async with visitor(browser, api.url) as visit:
        field = visit.page.get_by_label("Your token")
        await field.fill("nonsense")
        await field.press("Enter")
        await expect(visit.page.get_by_text("This is no token")).to_be_visible()
        await field.fill(make_token("another secret, which is long enough too", (new_id(), "member")))
        await field.press("Enter")
        await expect(visit.page.get_by_text("The token is not accepted")).to_be_visible()
        await field.fill(_token(someone))
        await field.press("Enter")
        await visit.say("let in")
        await expect(visit.answer()).to_contain_text("Echo from agent: let in")
        await visit.page.reload()
        await expect(visit.answer()).to_contain_text("Echo from agent: let in")
        await visit.page.get_by_role("button", name="Sign out").click()
        await expect(field).to_be_visible()
        assert await visit.page.evaluate("localStorage.getItem('throughline.token')") is None


async def test_token_that_a_development_server_refuses_is_replaced(browser: Browser, running: Running) -> None:
    """Of an earlier server, say: its own machine's browser gets another, and nobody is asked for anything."""
    stale = make_token("the secret of an earlier server, long enough", (new_id(), "member"))
    async with visitor(browser, running.api.url, stale) as visit:
        await visit.say("still me")
        await expect(visit.answer()).to_contain_text("Echo from agent: still me")
        assert await visit.page.evaluate("localStorage.getItem('throughline.token')") != stale


async def test_token_of_a_link_leaves_the_address(browser: Browser, running: Running, someone: Client) -> None:
    """It is in neither the address bar nor any request's URL, and nobody's token is in one."""
    asked: list[str] = []
    async with visitor(browser, running.api.url, _token(someone)) as visit:
        visit.page.on("request", lambda request: asked.append(request.url))
        await visit.say("hello")
        await expect(visit.answer()).to_contain_text("Echo from agent: hello")
        assert _token(someone) not in visit.page.url
        assert any("/stream?ticket=" in url for url in asked)
        assert not any(_token(someone) in url for url in asked)


async def test_token_of_a_link_is_taken_by_a_page_that_is_open(
    browser: Browser, running: Running, someone: Client
) -> None:
    """It never stands in a URL that is sent; and another person's link signs nobody in without being asked."""
    asked: list[str] = []
    workspace = someone.workspace_id
    theirs = make_token(SECRET, (workspace, "member"), user="mallory")
    async with visitor(browser, running.api.url, _token(someone)) as visit:
        page = visit.page
        visit.expect_dialogs()
        page.on("request", lambda request: asked.append(request.url))
        await expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        await page.evaluate(f"location.hash = 'token={theirs}'")
        await expect(page).to_have_url(f"{running.api.url}/")
        await eventually(lambda: visit.dialogs)
        kept = await page.evaluate("localStorage.getItem('throughline.token')")
    assert kept == _token(someone), "the question was answered with no"
    assert visit.dialogs == ["Sign in as mallory instead of alice?"]
    assert not any("oken=" in url or theirs in url for url in asked)


async def test_who_has_signed_out_stays_signed_out(browser: Browser, running: Running) -> None:
    """A development server gives its browser a token unasked, but not to somebody who has just left."""
    async with visitor(browser, running.api.url) as visit:
        await visit.page.get_by_role("button", name="Sign out").click()
        await expect(visit.page.get_by_label("Your token")).to_be_visible()
        await visit.page.reload()
        await expect(visit.page.get_by_label("Your token")).to_be_visible()
        await visit.page.get_by_role("button", name="Sign in on this machine").click()
        await expect(visit.page.get_by_role("button", name="Sign out")).to_be_visible()


async def test_token_of_several_workspaces_lets_one_choose(browser: Browser, running: Running) -> None:
    """What is shown belongs to the chosen workspace alone."""
    first, second = new_id(), new_id()
    token = make_token(SECRET, (first, "member"), (second, "member"))
    async with visitor(browser, running.api.url, token) as visit:
        await visit.say("in the first")
        await expect(visit.answer()).to_contain_text("Echo from agent: in the first")
        await visit.page.get_by_label("Workspace").select_option(str(second))
        await expect(visit.page.get_by_text("Nothing here yet.")).to_be_visible()
        await visit.say("in the second")
        await expect(visit.page.get_by_role("navigation").get_by_role("link")).to_have_text(["in the second"])
