"""The web page: a conversation with an agent."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from tests.e2e.conftest import Running
from tests.support.browser import Visitor, visitor
from tests.support.model_script import Reply
from tests.support.system import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = {"provider": "echo", "model": "echo?delayMs=100&repeat=20"}

_CORPUS = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg/onload=window.hit=1>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "<a href='javascript:window.hit=1'>a</a>",
    "<details open ontoggle=window.hit=1>",
    "<style>body { display: none }</style>",
    "<b style='position:fixed;inset:0'>over everything</b>",
    "[click](javascript:window.hit=1)",
    "[click](JaVaScRiPt:window.hit=1)",
    "[click](java\nscript:window.hit=1)",
    "[click](&#106;avascript:window.hit=1)",
    "[click](data:text/html;base64,PHNjcmlwdD53aW5kb3cuaGl0PTE8L3NjcmlwdD4=)",
    "[click](vbscript:window.hit=1)",
    "[click](file:///etc/passwd)",
    "[click](/v1/conversations)",
    "<javascript:window.hit=1>",
    "![x](https://elsewhere.invalid/pixel.png)",
    "![x](javascript:window.hit=1)",
    '![x](https://elsewhere.invalid/x.png"onerror="window.hit=1)',
    '[x](https://elsewhere.invalid "onmouseover=window.hit=1")',
    '[x]: https://elsewhere.invalid/"onclick="window.hit=1\n\n[x]',
    "`<script>window.hit = 1</script>`",
    "```html\n<script>window.hit = 1</script>\n```",
    "```<img/src=x/onerror=window.hit=1>\ncode\n```",
    "| <img src=x onerror=window.hit=1> | b |\n|---|---|\n| <script>window.hit=1</script> | d |",
    "&lt;script&gt;window.hit = 1&lt;/script&gt;",
    "<!-- --><![CDATA[<script>window.hit=1</script>]]>",
]
_MADE_OF_MARKDOWN = (
    *("div", "p", "br", "hr", "a", "strong", "em", "s", "code", "pre", "figure", "figcaption", "span", "button"),
    *("ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "article"),
)
_WHAT_IS_THERE = """answer => {
    const found = [...answer.querySelectorAll(".markdown, .markdown *")];
    return {
        tags: [...new Set(found.map((element) => element.localName))],
        attributes: [...new Set(found.flatMap((element) => element.getAttributeNames()))],
        links: found.filter((element) => element.localName === "a").map((a) => [a.protocol, a.rel, a.target]),
        hit: window.hit ?? null,
    };
}"""


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(browser: Browser, running: Running) -> AsyncIterator[Visitor]:
    """Somebody who opens the bare address of a development server."""
    async with visitor(browser, running.api.url) as stranger:
        yield stranger


async def test_first_message_needs_no_token_and_no_key(stranger: Visitor) -> None:
    """Who opens a development server's page writes a message and is answered, by the provider that needs no key."""
    await stranger.say("Is anybody there?")

    await expect(stranger.answer()).to_contain_text("Echo from agent: Is anybody there?")
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Is anybody there?")
    await expect(stranger.page.locator(".usage")).to_contain_text("3 tokens in, 6 out")
    listed = stranger.page.get_by_role("navigation").get_by_role("link")
    await expect(listed.first).to_have_text("Is anybody there?")
    assert "token" not in stranger.page.url


async def test_first_message_is_taken_however_early_it_comes(browser: Browser, running: Running) -> None:
    """Where the default provider has no key, one that has answers, also when the page still loads."""
    api = await running.system.api(DEFAULT_PROVIDER="zai", DEFAULT_MODEL="glm-4.6")
    async with visitor(browser, api.url) as hasty:
        await hasty.page.route("**/v1/models", _late)
        await hasty.page.reload()
        await hasty.say("already")
        await expect(hasty.answer()).to_contain_text("Hello from the fake model.")


async def _late(route: Route) -> None:
    """The models as workers of such a system offer them, after a while."""
    answer = await route.fetch()
    offers = (await answer.json())["data"]
    await asyncio.sleep(0.5)
    await route.fulfill(json={"data": [{**offer, "default": offer["name"] == "zai"} for offer in offers]})


async def test_markdown_of_an_answer_is_shown_as_such(visit: Visitor) -> None:
    """Headings, lists, tables, code and links; addresses in the text are links as well."""
    await visit.say(
        "\n\n## Fish\n\n- **cod**\n- ~~eel~~\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n\n```python\nprint(1)\n```\n"
        "[site](https://one.invalid) and https://two.invalid"
    )

    answer = visit.answer()
    await expect(answer.get_by_role("heading", name="Fish")).to_be_visible()
    await expect(answer.locator("li strong")).to_have_text("cod")
    await expect(answer.locator("td").nth(1)).to_have_class("align-right")
    await expect(answer.locator("pre code")).to_have_text("print(1)\n")
    await expect(answer.locator("figcaption")).to_contain_text("python")
    links = await answer.get_by_role("link").evaluate_all("all => all.map((a) => [a.href, a.rel])")
    assert [href for href, _ in links] == ["https://one.invalid/", "https://two.invalid/"]
    assert all("noopener noreferrer" in rel for _, rel in links)


async def test_hostile_output_stays_text(visit: Visitor) -> None:
    """Whatever a model writes, there is no script, no style, no image, nothing fetched, no link but to the web."""
    for piece in ("\n\n".join(_CORPUS[:14]), "\n\n".join(_CORPUS[14:])):
        await visit.say(f"begin\n\n{piece}\n\nfinis")
        await expect(visit.answer()).to_contain_text("finis")
        await expect(visit.page.get_by_role("button", name="Answer again")).to_be_enabled()
    await expect(visit.answer(0)).to_contain_text("<script>window.hit = 1</script>")

    for number in (0, 1):
        found = await visit.answer(number).evaluate(_WHAT_IS_THERE)
        assert found["hit"] is None
        assert set(found["tags"]) <= set(_MADE_OF_MARKDOWN)
        assert set(found["attributes"]) <= {"class", "dir", "href", "rel", "target", "type", "tabindex"}
        assert {protocol for protocol, _, _ in found["links"]} <= {"https:"}
        assert {(rel, target) for _, rel, target in found["links"]} <= {("noopener noreferrer nofollow", "_blank")}
    assert found["links"], "a harmless link is one"


async def test_hostile_title_and_question_stay_text(visit: Visitor) -> None:
    """What people write is text too: in the list, as the heading, in the question."""
    await visit.say("<img src=x onerror='window.hit = 1'>")

    await expect(visit.page.locator(".bubble")).to_have_text("<img src=x onerror='window.hit = 1'>")
    await expect(visit.page.get_by_role("heading", level=1)).to_have_text("<img src=x onerror='window.hit = 1'>")
    assert await visit.page.locator("#page img").count() == 0
    assert await visit.page.evaluate("window.hit ?? null") is None


async def test_tool_call_is_folded_with_arguments_and_result(visit: Visitor, someone: Client) -> None:
    """A call is one line that opens; it stays as somebody left it while the answer goes on."""
    arguments = quote('{"what": "fish"}')
    model = f"echo?tool=look&args={arguments}&delayMs=100&repeat=5"
    conversation = await someone.conversation(provider="echo", model=model)
    await visit.open(conversation)
    await visit.say("use it")

    call = visit.answer().locator("details")
    await expect(call.locator("summary")).to_have_text(re.compile("Tool look.*done"))
    await expect(call.locator("pre").first).to_be_hidden()
    await call.locator("summary").click()
    await expect(call.locator("pre").first).to_contain_text('"what": "fish"')
    await expect(call.locator("pre").nth(1)).not_to_be_empty()
    await expect(visit.page.get_by_role("button", name="Answer again")).to_be_visible()
    await expect(call.locator("pre").first).to_be_visible()


async def test_step_that_is_asked_again_starts_over(visit: Visitor, someone: Client, running: Running) -> None:
    """Of an answer that broke in its middle nothing is left; reasoning is folded, apart from the answer."""
    reasoning = "I think of fish"
    running.system.models.script(
        Reply(reasoning=reasoning, text="This is the wrong answer, ", error="overloaded", pause_s=0.02),
        Reply(reasoning=reasoning, text="This is the right one.", pause_s=0.02),
        model="claude-of-the-page",
    )
    conversation = await someone.conversation(provider="anthropic", model="claude-of-the-page")
    await visit.open(conversation)
    await visit.say("think")

    folded = visit.answer().locator("details")
    await expect(visit.page.get_by_role("button", name="Answer again")).to_be_visible()
    await expect(visit.answer().locator("article > .markdown")).to_have_text("This is the right one.")
    await expect(folded).to_have_count(1)
    await expect(folded.locator(".markdown")).to_be_hidden()
    await folded.locator("summary").click()
    await expect(folded.locator(".markdown")).to_have_text(reasoning)


async def test_stop_keeps_what_was_said(visit: Visitor, someone: Client) -> None:
    """Stopping ends the run; what it had said until then is still there, and after a reload too."""
    conversation = await someone.conversation(**SLOW)
    await visit.open(conversation)
    await visit.say("one two three")
    await expect(visit.answer()).to_contain_text("Echo from agent: one")

    await visit.page.get_by_role("button", name="Stop").click()

    await expect(visit.answer()).to_contain_text("Stopped.")
    await expect(visit.page.get_by_role("button", name="Send")).to_be_visible()
    for _ in range(2):
        await expect(visit.answer()).to_contain_text(re.compile("Echo from agent: one.*Stopped", re.DOTALL))
        await visit.page.reload()
    [run] = (await someone.http.get("/v1/runs", params={"conversationId": conversation})).json()["data"]
    assert run["state"] == "cancelled"


async def test_edited_message_is_answered_anew(visit: Visitor) -> None:
    """The answer to the new text takes the place of the old one and of all that came after it."""
    await visit.say("the first")
    await expect(visit.answer()).to_contain_text("Echo from agent: the first")
    await visit.say("the second")
    await expect(visit.answer(1)).to_contain_text("Echo from agent: the second")

    await visit.page.locator(".question").first.hover()
    await visit.page.get_by_role("button", name="Edit").first.click()
    field = visit.page.get_by_role("textbox", name="Edit the message")
    await expect(field).to_be_focused()
    await field.fill("the better first")
    await visit.page.get_by_role("button", name="Save").click()

    await expect(visit.answer(0)).to_contain_text("Echo from agent: the better first")
    await expect(visit.page.locator(".bubble")).to_have_text(["the better first"])
    await visit.page.reload()
    await expect(visit.page.locator(".bubble")).to_have_text(["the better first"])
    await expect(visit.answer(0)).to_contain_text("Echo from agent: the better first")


async def test_answer_again_replaces_the_last_answer(visit: Visitor, someone: Client) -> None:
    """There is one answer afterwards, by another run."""
    await visit.say("once more")
    again = visit.page.get_by_role("button", name="Answer again")
    await again.click()
    await expect(visit.page.locator(".answer article")).to_have_count(1)
    await expect(again).to_be_enabled()
    await expect(visit.answer()).to_contain_text("Echo from agent: once more")

    conversation = visit.page.url.rpartition("/")[2]
    runs = (await someone.http.get("/v1/runs", params={"conversationId": conversation})).json()["data"]
    assert [run["state"] for run in runs] == ["completed", "completed"]


async def test_failed_run_says_why(visit: Visitor, someone: Client) -> None:
    """The provider's refusal is shown in place of an answer, after a reload too."""
    conversation = await someone.conversation(provider="echo", model="echo?fail=auth")
    await visit.open(conversation)
    await visit.say("fail")

    await expect(visit.answer().locator(".error")).not_to_be_empty()
    await visit.page.reload()
    await expect(visit.answer().locator(".error")).not_to_be_empty()
    await expect(visit.page.get_by_role("button", name="Answer again")).to_be_enabled()


async def test_chosen_model_and_agent_answer_the_next_message(visit: Visitor, someone: Client) -> None:
    """The choice belongs to the conversation: it holds from the next message on, and after a reload."""
    agent = (await someone.http.post("/v1/agents", json={"name": "Clerk", "provider": "echo", "model": "echo"})).json()
    await visit.page.reload()
    await visit.page.get_by_label("Model").select_option("echo/echo?delayMs=50")
    await visit.say("by the slow one")
    await expect(visit.page.locator(".usage")).to_contain_text("echo?delayMs=50")

    await visit.page.get_by_label("Agent").select_option("Clerk")
    await visit.say("by the clerk")
    await expect(visit.page.locator(".usage").nth(1)).to_contain_text("echo")
    await visit.page.reload()
    await expect(visit.page.get_by_label("Agent")).to_have_value(agent["id"])

    conversation = visit.page.url.rpartition("/")[2]
    runs = (await someone.http.get("/v1/runs", params={"conversationId": conversation})).json()["data"]
    assert [(run["agentId"], run["model"]) for run in runs] == [(agent["id"], "echo"), (None, "echo?delayMs=50")]


async def test_message_goes_after_the_choice_that_was_made_before_it(visit: Visitor, someone: Client) -> None:
    """However slow the server takes a choice: the message that follows it is answered by what was chosen."""
    conversation = await someone.conversation(provider="echo", model="echo")
    await visit.open(conversation)

    async def late(route: Route) -> None:
        if route.request.method == "PATCH":
            await asyncio.sleep(0.5)
        await route.continue_()

    await visit.page.route(f"**/v1/conversations/{conversation}", late)
    await visit.page.get_by_label("Model").select_option("echo/echo?delayMs=50")
    await visit.say("by the slow one")

    await expect(visit.page.locator(".usage")).to_contain_text("echo?delayMs=50")
    await expect(visit.page.get_by_label("Model")).to_have_value("echo/echo?delayMs=50")


async def test_choice_that_is_refused_sends_nothing(visit: Visitor, someone: Client) -> None:
    """The message stays where it was written, the old choice is shown again, and the next Enter sends it."""
    conversation = await someone.conversation(provider="echo", model="echo")
    await visit.open(conversation)

    async def refuse(route: Route) -> None:
        await asyncio.sleep(0.5)
        await route.fulfill(status=404, json={"error": {"code": "not_found", "message": "No such thing"}})

    await visit.page.route(f"**/v1/conversations/{conversation}", refuse, times=1)
    await visit.page.get_by_label("Model").select_option("echo/echo?delayMs=50")
    await visit.say("by the slow one")

    await expect(visit.page.get_by_role("status").filter(has_text="nothing was sent")).to_be_visible()
    await expect(visit.page.get_by_label("Model")).to_have_value("echo/echo")
    await expect(visit.page.get_by_role("textbox", name="Message")).to_have_value("by the slow one")
    await visit.page.get_by_role("textbox", name="Message").press("Enter")
    await expect(visit.page.locator(".usage")).to_contain_text("out · echo")


async def test_conversation_of_another_client_goes_on_without_a_key(
    browser: Browser, running: Running, someone: Client
) -> None:
    """It names no model, and the server's default has no key: one that has stands in, and is shown to do so."""
    api = await running.system.api(DEFAULT_PROVIDER="zai", DEFAULT_MODEL="glm-4.6")
    client = await running.system.client(api, someone.workspace_id)
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "# from elsewhere"}]}
    posted = await client.http.post(
        "/ai/chat", json={"id": "c", "messages": [message], "provider": "echo", "model": "echo"}
    )
    assert posted.status_code == 200
    token = someone.headers["authorization"].removeprefix("Bearer ")
    async with visitor(browser, api.url, token) as visit:
        await visit.page.route("**/v1/models", _late)
        await visit.page.reload()
        await visit.page.get_by_role("navigation").get_by_text("# from elsewhere").click()
        await expect(visit.page.get_by_label("Model")).not_to_have_value("")
        await visit.say("and on")
        await expect(visit.answer()).to_contain_text("Hello from the fake model.")
