"""What the tests of live documents share: two API processes, a worker, and a process of Node full of editors."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest_asyncio

from tests.support.editors import Editors, running_editors
from tests.support.processes import RunningProcess
from tests.support.system import Client, System, running_system


class Studio(NamedTuple):
    """The system, and whoever edits in it."""

    system: System
    here: RunningProcess
    there: RunningProcess
    editors: Editors


class Pair(NamedTuple):
    """One person, at each of the two APIs."""

    here: Client
    there: Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio() -> AsyncIterator[Studio]:
    """For all tests of a module."""
    async with running_system(forked=True) as system, running_editors() as editors:
        here, there = await system.api(), await system.api()
        await system.worker()
        yield Studio(system, here, there, editors)


@pytest_asyncio.fixture(loop_scope="module")
async def alice(studio: Studio) -> Pair:
    """A member of a workspace of their own."""
    here = await studio.system.client(studio.here)
    return Pair(here, await studio.system.client(studio.there, here.workspace_id))
