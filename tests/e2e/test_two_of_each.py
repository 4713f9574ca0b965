"""Two API processes and two workers: it does not matter through which of them one looks."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.system import Client, System, fold, ids_increase, running_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = {"provider": "echo", "model": "echo?delayMs=30&repeat=20"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[System]:
    """Servers for the whole module."""
    async with running_system(forked=True) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(system: System) -> tuple[Client, Client]:
    """One person at two API processes, with two workers behind them."""
    apis = [await system.api() for _ in range(2)]
    for _ in range(2):
        await system.worker()
    first = await system.client(apis[0])
    return first, await system.client(apis[1], first.workspace_id)


async def test_run_is_watched_and_resumed_through_another_api(clients: tuple[Client, Client]) -> None:
    """A reader that loses one process goes on at the other with the last id it saw, and misses nothing."""
    here, there = clients
    run = await here.start("one two three", **SLOW)
    begun = await here.stream(run)
    await begun.read_until(b'"type":"token"')
    begun.close()
    seen = begun.frames
    rest = await (await there.stream(run, after=seen[-1].id)).read_to_end(30)
    frames = [*seen, *rest]
    assert ids_increase(frames)
    held, end = fold([frame.event for frame in frames])
    assert end is not None
    assert end["type"] == "done"
    stored = [message for message in await there.messages(run) if message["role"] == "assistant"]
    assert [message["content"] for message in held] == [message["content"] for message in stored]


async def test_several_viewers_see_the_same(clients: tuple[Client, Client]) -> None:
    """Five readers on two processes get the same ids and the same events."""
    run = await clients[0].start("the same for all", **SLOW)
    streams = [await clients[number % 2].stream(run) for number in range(5)]
    frames = [await stream.read_to_end(30) for stream in streams]
    assert all(one == frames[0] for one in frames[1:])
    assert all(stream.ended_cleanly for stream in streams)


async def test_reader_that_leaves_cancels_nothing(clients: tuple[Client, Client]) -> None:
    """The run goes on without anybody watching, and its message is complete."""
    here, _ = clients
    run = await here.start("nobody is listening", **SLOW)
    stream = await here.stream(run)
    await stream.read_until(b'"type":"token"')
    stream.close()
    await here.state_is(run, "completed")
    (answer,) = [message for message in await here.messages(run) if message["role"] == "assistant"]
    assert answer["content"].count("nobody is listening") == 20


async def test_interrupt_cancels_and_goes_on(clients: tuple[Client, Client]) -> None:
    """A new message takes the place of the running one and of all that wait."""
    here, there = clients
    conversation = await here.conversation()
    running = await here.post(conversation, "first", **SLOW)
    await here.state_is(running, "running")
    waiting = await here.post(conversation, "second", ifBusy="enqueue")
    run = await there.post(conversation, "stop, this instead", ifBusy="interrupt")
    await here.state_is(run, "completed")
    assert [(await here.run(one))["state"] for one in (running, waiting)] == ["cancelled", "cancelled"]
    assert (await here.events(running))[-1] == {"type": "cancelled", "reason": "interrupted"}
