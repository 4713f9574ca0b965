"""A client's place at the hub: nothing that comes is overlooked."""

import asyncio

import pytest

from api.relay.batch import Batch
from api.relay.client import Arrival, Client
from common.eventlog.log import LogEvent
from common.ids import EventId

STARTED = EventId(1, 1)
ARRIVAL = Arrival(STARTED, STARTED, Batch([LogEvent(STARTED, b'{"type":"started"}')]), 18)


async def test_client_does_not_wait_for_what_came_while_it_read() -> None:
    """What is published during a read of the log, which did not find it, is handed on at once."""
    client = Client()
    client.catch_up()
    client.push(ARRIVAL)
    async with asyncio.timeout(1):
        assert await client.wait(3600)
    assert client.take() == [ARRIVAL]


async def test_client_waits_for_what_is_not_there_yet() -> None:
    """An arrival ends the wait; without one it lasts for its time."""
    client = Client()
    client.catch_up()
    asyncio.get_running_loop().call_soon(client.push, ARRIVAL)
    async with asyncio.timeout(1):
        assert await client.wait(3600)
    client.take()
    assert not await client.wait(0.01)


async def test_client_hands_on_while_it_waits() -> None:
    """What is handed on directly wakes nobody; what is not, and what comes while nobody waits, is queued."""
    client, offered, takes = Client(), list[Arrival](), [True, False]

    def direct(arrival: Arrival) -> bool:
        offered.append(arrival)
        return takes.pop(0)

    client.direct = direct
    client.catch_up()
    waiting = asyncio.create_task(client.wait(3600))
    await asyncio.sleep(0)
    client.push(ARRIVAL)
    assert (len(offered), client.take()) == (1, [])
    await asyncio.sleep(0)
    assert not waiting.done()
    client.push(ARRIVAL)
    client.push(ARRIVAL)  # The follower is awake by now: this one comes behind the one that it was woken for.
    assert await waiting
    assert (len(offered), client.take()) == (2, [ARRIVAL, ARRIVAL])
    client.push(ARRIVAL)
    assert (len(offered), client.take()) == (2, [ARRIVAL])


async def test_client_is_silent_since_it_was_told_something() -> None:
    """The silence that a wait ends with begins anew with each arrival that is handed on."""
    client, loop = Client(), asyncio.get_running_loop()
    client.direct = lambda _: True
    client.catch_up()
    began = loop.time()
    loop.call_later(0.05, client.push, ARRIVAL)
    assert not await client.wait(0.1)
    assert loop.time() - began >= 0.149


async def test_client_that_cannot_hand_on_fails_its_follower() -> None:
    """What goes wrong at one client is raised where its follower waits, and nowhere else."""

    def direct(_: Arrival) -> bool:
        raise ValueError("of this client")

    client = Client()
    client.direct = direct
    client.catch_up()
    asyncio.get_running_loop().call_soon(client.push, ARRIVAL)
    with pytest.raises(ValueError, match="of this client"):
        await client.wait(3600)
