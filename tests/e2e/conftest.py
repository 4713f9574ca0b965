"""One system for all tests of a module: an API process, a worker, a fake model server."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.api_client import make_token
from tests.support.browser import Visitor, running_browser, visitor
from tests.support.document_page import Enter, status_of
from tests.support.processes import RunningProcess
from tests.support.system import SECRET, Client, System, running_system


class Running(NamedTuple):
    """What the module shares."""

    system: System
    api: RunningProcess
    worker: RunningProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    """A system with one API and one worker."""
    async with running_system(forked=True) as system:
        api = await system.api()
        yield Running(system, api, await system.worker())


@pytest_asyncio.fixture(loop_scope="module")
async def someone(running: Running) -> Client:
    """A member of a workspace of their own."""
    return await running.system.client(running.api)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests of a module."""
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, running: Running, someone: Client) -> AsyncIterator[Visitor]:
    """`someone` on the web page."""
    token = someone.headers["authorization"].removeprefix("Bearer ")
    async with visitor(browser, running.api.url, token) as visit:
        yield visit


@pytest_asyncio.fixture(loop_scope="module")
async def enter(browser: Browser, running: Running, someone: Client) -> AsyncIterator[Enter]:
    """Lets members of `someone`'s workspace open a document on the web page."""
    async with AsyncExitStack() as stack:

        async def enter(document: str, name: str = "Ada Lovelace") -> Visitor:
            token = make_token(SECRET, (someone.workspace_id, "member"), user=name.lower(), name=name)
            visit = await stack.enter_async_context(visitor(browser, running.api.url, token))
            await visit.page.goto(f"{visit.url}/#/?document={document}")
            await expect(status_of(visit)).to_have_text("Live")
            return visit

        yield enter
