"""A real browser on the web page, as a person has it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    async_playwright,
    expect,
)

_PAGE = Path(__file__).resolve().parents[2] / "api" / "web" / "dist" / "index.html"
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_PATIENCE_MS = 15_000
"""A page shares its machine with other tests."""

expect.set_options(timeout=_PATIENCE_MS)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """The system's Chromium, without a window. Skips the test where there is none, or no page to show."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs chromium: no browser can open the page on this machine")
    if not _PAGE.exists():
        pytest.skip("needs the page: `make page` builds it")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        await browser.close()


class Visitor:
    """Somebody with a browser of their own, at one server."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.faults: list[str] = []
        """What the page's policy has forbidden, what it has thrown, and what it has asked of anybody else."""
        self.dialogs: list[str] = []
        """What `expect_dialogs` has answered with no."""
        self._expects_dialogs = False
        self.watch(page)

    def expect_dialogs(self) -> None:
        """From here on questions are no fault."""
        self._expects_dialogs = True

    def watch(self, page: Page) -> None:
        """Takes note of the faults of one more tab."""
        page.on("pageerror", lambda error: self.faults.append(f"thrown: {error}"))
        page.on("console", self._on_console)
        page.on("request", self._on_request)
        page.on("dialog", self._on_dialog)

    async def tab(self, path: str = "/") -> Page:
        """One more tab of the same browser."""
        page = await self.context.new_page()
        self.watch(page)
        await page.goto(self.url + path)
        return page

    async def open(self, conversation: str) -> None:
        """Goes to a conversation, and waits until it is there."""
        await self.page.goto(f"{self.url}/#/{conversation}")
        await self.page.get_by_role("button", name="Rename").wait_for()

    async def say(self, text: str) -> None:
        """Types a message and sends it."""
        field = self.page.get_by_role("textbox", name="Message")
        await field.fill(text)
        await field.press("Enter")

    def answer(self, number: int = -1) -> Any:
        """The answer of a turn, the last one's unless another is named."""
        return self.page.locator(".answer").nth(number)

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium also reports each request and socket that fails, which some tests are about.
        failures = ("Failed to load resource", "WebSocket connection to")
        if message.type in ("error", "warning") and not message.text.startswith(failures):
            self.faults.append(f"{message.type}: {message.text}")

    async def _on_dialog(self, dialog: Dialog) -> None:
        if self._expects_dialogs:
            self.dialogs.append(dialog.message)
        else:
            self.faults.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(self.url):
            self.faults.append(f"asked of somebody else: {request.url}")


@asynccontextmanager
async def visitor(browser: Browser, url: str, token: str | None = None, **options: Any) -> AsyncIterator[Visitor]:
    """A browser without a past on the page of `url`, by a link with `token` where there is one.

    Fails at the end if the page has done what it must never do.
    """
    context = await browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    context.set_default_timeout(_PATIENCE_MS)
    page = await context.new_page()
    someone = Visitor(context, page, url)
    await page.goto(f"{url}/#token={token}" if token else url)
    yield someone
    faults = list(someone.faults)
    await context.close()
    assert faults == []
